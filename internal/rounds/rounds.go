// Package rounds says how many rounds the tests run. A plain go test runs few, so that everybody runs it. TALLYGATE_ROUNDS=full makes it run
// all, as CI does.
package rounds

import (
	"flag"
	"os"
	"strconv"
)

// Full reports whether the tests run all rounds.
func Full() bool {
	switch rounds := os.Getenv("TALLYGATE_ROUNDS"); rounds {
	case "":
		return false
	case "full":
		return true
	default:
		panic("TALLYGATE_ROUNDS=" + rounds + ": expected full, or nothing")
	}
}

// Of returns how often a test does something: few times, or all with TALLYGATE_ROUNDS=full.
func Of(few, all int) int {
	if Full() {
		return all
	}
	return few
}

// Checks sets how many random cases each rapid.Check of this process tries: few, or all with TALLYGATE_ROUNDS=full. With the race detector, which
// makes a test take up to ten times as long, few is a fifth, since races are in the code and hardly in the case. The flag -rapid.checks goes
// before. TestMain calls it.
func Checks(few, all int) {
	if race {
		few = max(few/5, 1)
	}
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if asked {
		return
	}
	if err := flag.Set("rapid.checks", strconv.Itoa(Of(few, all))); err != nil {
		panic(err)
	}
}
