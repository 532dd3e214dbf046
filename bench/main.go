// Command bench measures what metering costs, as ratios to Caddy without a meter:
//
//	go run ./bench                          # all cases
//	go run ./bench -case wallet/64 -pairs 9 # those that a regular expression matches
//	go run ./bench -list                    # their names
//
// It builds cmd/tallygate, and starts one upstream and two servers: bare, whose routes only have Caddy's reverse_proxy, and metered, with a meter
// in front of the same upstream. All three are separate processes. It loads the servers in turn, and compares the two turns of each pair,
// because the speed of a machine changes from minute to minute. The load generator and the upstream share the machine with the loaded server;
// both use fasthttp, so they take little of it.
//
// For each case it prints the median over all pairs, with the smallest and the largest value in brackets:
//
//   - throughput: calls per second (for streams: events), metered divided by bare
//   - CPU: user and system time of the server's process per call or event, metered divided by bare; and that of bare in microseconds
//   - added p50, p99, p99.9: how much later an answer ends, or an event of a stream arrives, in milliseconds. In a case with a fixed rate, the
//     time of an answer counts from when its request should have begun, so a server that stalls can't hide requests that were sent late
//   - first ms: of streams, how much later the first event arrives, counted from when its request should have begun
//   - KB: of idle streams, the memory that each has of the metered server, and of the bare one: what is in use after a collection of garbage
//   - RSS: resident memory after the turn, in MB, metered and bare
//
// To compare with another gateway, install Portkey's by `npm install @portkey-ai/gateway`, and give its folder with -portkey. It takes the place of
// the metered server, in the cases of chats.
//
// To compare with a server whose calls are paid by x402, install its packages by
// `npm install express viem @x402/core @x402/evm @x402/express`, and give their folder with -x402. Express with the middleware of x402 takes the
// place of the metered server, in the cases of a price per call. Its facilitator answers at once, looks at no signature and has no chain.
//
// To measure with a ledger that is full, say how full with -agents and -charges, and name a file with -ledger to keep it for other runs. With
// -bare-meters the bare server has a meter too, and an empty ledger.
//
// To compare two versions of Tallygate, give the other one's binary with -bare, and -bare-meters.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) == 3 && os.Args[1] == "upstream" {
		log.Fatal(serveUpstream(os.Args[2]))
	}
	o := options{}
	only := flag.String("case", "", "a regular expression: the cases to run")
	list := flag.Bool("list", false, "list the cases and end")
	flag.IntVar(&o.pairs, "pairs", 7, "pairs of turns for each case")
	flag.DurationVar(&o.turn, "turn", 3*time.Second, "how long a turn takes")
	flag.StringVar(&o.bare, "bare", "", "the bare server's binary; default: built from this repository")
	flag.StringVar(&o.metered, "metered", "", "the metered server's binary; default: the same")
	flag.BoolVar(&o.bareMeters, "bare-meters", false, "put meters before the bare server too: two binaries are compared")
	flag.IntVar(&o.agents, "agents", 0, "agents that the metered server's ledger has before, besides the payers")
	flag.IntVar(&o.charges, "charges", 0, "charges that these agents have paid before")
	flag.StringVar(&o.ledger, "ledger", "", "the file of the metered server's ledger: it is kept, and filled only if it is not there; default: a new one")
	flag.StringVar(&o.folder, "folder", "", "where the ledgers are; default: a temporary folder, so that the disk is the one of TMPDIR")
	flag.StringVar(&o.portkey, "portkey", "", "where Portkey's gateway was installed by npm: it takes the place of the metered server")
	flag.StringVar(&o.x402, "x402", "", "where the packages of x402 were installed by npm: a server that is paid by it takes the place of the metered server")
	flag.StringVar(&o.admin, "admin", "", "the address of the metered server's admin endpoint, where /debug/pprof/ is; default: a free one")
	flag.Parse()
	if *list {
		for _, c := range cases {
			fmt.Printf("%-24s %s\n", c.name, c.about)
		}
		return
	}
	if err := run(o, *only); err != nil {
		log.Fatal(err)
	}
}

type options struct {
	pairs         int
	turn          time.Duration
	bare, metered string
	bareMeters    bool
	portkey       string // the folder with its node_modules; empty: our own metered server is measured
	x402          string // the folder with the node_modules of a server that is paid by x402; empty: the same
	admin         string // address of the metered server's admin endpoint; empty: a free one
	agents        int
	charges       int
	ledger        string // the file of the metered server's ledger; empty: a new one in the folder
	folder        string
}

// serves is false for cases that the server in place of the metered one does not have.
func (o options) serves(c load) bool {
	switch {
	case o.portkey != "":
		return strings.HasSuffix(c.path, chatPath)
	case o.x402 != "":
		return strings.HasPrefix(c.path, "/wallet/") && !c.http2 && !c.echo && c.payers == 0
	default:
		return true
	}
}

func run(o options, only string) (err error) {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	if o.folder == "" {
		if o.folder, err = os.MkdirTemp("", "tallygate-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.folder)
	}
	if o.bare == "" {
		if o.bare, err = build(filepath.Join(o.folder, "tallygate")); err != nil {
			return err
		}
	}
	if o.metered == "" {
		o.metered = o.bare
	}
	b, err := open(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	printHead(o)
	for _, c := range cases {
		if !wanted.MatchString(c.name) || !o.serves(c) {
			continue
		}
		pairs, err := b.measure(c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		printCase(c, pairs)
	}
	return nil
}
