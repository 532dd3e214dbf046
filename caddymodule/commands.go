package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/tallygate/tallygate/escrow"
	"github.com/tallygate/tallygate/escrow/api"
	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/escrow/ledger/bolt"
)

func registerCommands() {
	registerReading()
	registerLedger()
	registerAgents()
	registerBooking("deposit", "Books a deposit into an agent's wallet", "Where the money came from, such as the transaction id of a bank or a blockchain; it is booked once")
	registerBooking("withdraw", "Books a withdrawal from an agent's wallet, or from the commission", "Where the money went, such as the transaction id of a bank or a blockchain; it is booked once")
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "credit",
		Short: "Lets an agent make calls to a payee without money, up to an amount",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "credit PAYEE AGENT AMOUNT [FILE]"
			bookFlags(cmd)
			cmd.Flags().String("expires", "", "When what is unused of it is taken back, such as 2027-01-01 or 2027-01-01T12:00:00Z")
			cmd.Flags().String("memo", "", "What it is for")
			setRun(cmd, cobra.RangeArgs(3, 4), runCredit)
		},
	})
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "health",
		Short: "Asks the running server whether it is ready; exits with 1 if it is not",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "health"
			bookFlags(cmd)
			cmd.Flags().Duration("wait", 0, "How long to ask again until the server is ready, such as 60s")
			setRun(cmd, cobra.NoArgs, runHealth)
		},
	})
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "explain",
		Short: "Shows how the charge of a request was computed",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "explain req_... [FILE]"
			bookFlags(cmd)
			setRun(cmd, cobra.RangeArgs(1, 2), runExplain)
		},
	})
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "reconcile",
		Short: "Compares a provider's report of usage or costs with the charges, by day and model",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = "reconcile --provider NAME REPORT [FILE]"
			bookFlags(cmd)
			cmd.Flags().String("provider", "", "The provider that made the report: openai, anthropic or openrouter")
			cmd.Flags().String("payee", "", "Compare only the charges of this payee")
			cmd.Flags().String("route", "", "Compare only the charges of this route")
			setRun(cmd, cobra.RangeArgs(1, 2), runReconcile)
		},
	})
}

// registerLedger registers the commands on the books as a whole.
func registerLedger() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "ledger",
		Short: "Verifies, backs up, restores and exports Tallygate's ledger",
		CobraFunc: func(cmd *cobra.Command) {
			verify := subcommand("verify [FILE]", "Computes every balance from the transfers and compares it with the recorded one", cobra.MaximumNArgs(1), runVerify)
			verify.Flags().String("head", "", "A head of the hash chain that was printed before, as TRANSFER:HASH; fails if history up to it was changed")
			cmd.AddCommand(verify)
			cmd.AddCommand(subcommand("stat [FILE]", "Shows the size of the ledger, its last transfer and the head of the hash chain", cobra.MaximumNArgs(1), runStat))
			cmd.AddCommand(subcommand("backup TO [FILE]", "Writes a verified backup into a new file, while the server goes on", cobra.RangeArgs(1, 2), runBackup))
			restore := subcommand("restore BACKUP [FILE]", "Makes a ledger from a backup, if there is no ledger yet", cobra.RangeArgs(1, 2), runRestore)
			restore.Flags().Bool("accept-meta", false, "Accept a file in which one of the two meta pages is damaged; the last commit may be missing")
			cmd.AddCommand(restore)
			export := subcommand("export [FILE]", "Writes transfers (csv, jsonl) or charges (cloudevents) to the standard output", cobra.MaximumNArgs(1), runExport)
			export.Flags().String("format", formatCSV, "csv, jsonl or cloudevents")
			export.Flags().String("from", "", "Only from this time on, such as 2026-11-01 or 2026-11-01T12:00:00Z")
			export.Flags().String("to", "", "Only before this time")
			cmd.AddCommand(export)
			withSubcommands(cmd)
		},
	})
}

func subcommand(use, short string, args cobra.PositionalArgs, run commandFunc) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	setRun(cmd, args, run)
	bookFlags(cmd)
	return cmd
}

// bookFlags adds the flags that say which ledger a command works on.
func bookFlags(cmd *cobra.Command) {
	cmd.Flags().StringP("config", "c", "", "Configuration that names the ledger and the admin address (default: the Caddyfile in this folder)")
	cmd.Flags().StringP("adapter", "a", "", "Name of the config adapter to apply")
	cmd.Flags().String("address", "", "Address of the admin endpoint of the server that holds the ledger, if not the config's")
	cmd.Flags().Bool("json", false, "Print the result as JSON")
}

// askAgain is the time between two questions whether a server is ready.
const askAgain = 200 * time.Millisecond

// runHealth asks the server that the config names whether it is ready, and with --wait again until it is.
func runHealth(cmd *cobra.Command, _ []string) (int, error) {
	place, err := findBooks(cmd, "")
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	wait, err := cmd.Flags().GetDuration("wait")
	if err != nil {
		return caddy.ExitCodeFailedStartup, answered(err)
	}
	last := time.Now().Add(wait)
	for {
		response, err := caddycmd.AdminAPIRequest(place.address, "GET", adminPath+"ready", nil, nil)
		if err == nil {
			_ = response.Body.Close()
			break
		}
		if time.Now().After(last) {
			return caddy.ExitCodeFailedStartup, answered(err)
		}
		time.Sleep(askAgain)
	}
	if !printJSON(cmd, map[string]string{"status": "ready"}) {
		fmt.Println("ready")
	}
	return caddy.ExitCodeSuccess, nil
}

func runAgentsList(cmd *cobra.Command, args []string) (int, error) {
	var agents []listedAgent
	if err := perform(cmd, "agents/list", optional(args, 0), nil, &agents); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, agents) {
		table(func(line func(...string)) {
			for _, agent := range agents {
				line(agent.AgentID, agent.Balance.String(), agent.Status, agent.Name)
			}
		})
	}
	return caddy.ExitCodeSuccess, nil
}

func runAgentsAdd(cmd *cobra.Command, args []string) (int, error) {
	name, _ := cmd.Flags().GetString("name")
	adopt, _ := cmd.Flags().GetBool("adopt")
	return showKey(cmd, "agents/add", optional(args, 1), agentArgs{ID: args[0], Name: name, Adopt: adopt})
}

func runAgentsKey(cmd *cobra.Command, args []string) (int, error) {
	return showKey(cmd, "agents/key", optional(args, 1), agentArgs{ID: args[0]})
}

// showKey does a task that makes a key or gives it another secret, and shows that.
func showKey(cmd *cobra.Command, task, file string, args any) (int, error) {
	var made newKey
	if err := perform(cmd, task, file, args, &made); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, made) && made.APIKey != "" {
		fmt.Println(made.APIKey)
	}
	return caddy.ExitCodeSuccess, nil
}

// registerBooking registers a command that books money in or out. Its name is also the name of its task.
func registerBooking(name, short, reference string) {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  name,
		Short: short,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.Use = name + " AGENT AMOUNT [FILE]"
			bookFlags(cmd)
			cmd.Flags().String("reference", "", reference)
			cmd.Flags().String("memo", "", "What it is for")
			setRun(cmd, cobra.RangeArgs(2, 3), func(cmd *cobra.Command, args []string) (int, error) { return runBooking(name, cmd, args) })
		},
	})
}

func runBooking(name string, cmd *cobra.Command, args []string) (int, error) {
	amount, err := ledger.ParseAmount(args[1])
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	order := bookingArgs{AgentID: args[0], Amount: amount}
	order.Reference, _ = cmd.Flags().GetString("reference")
	order.Memo, _ = cmd.Flags().GetString("memo")
	var b booked
	if err := perform(cmd, name, optional(args, 2), order, &b); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if printJSON(cmd, b) {
		return caddy.ExitCodeSuccess, nil
	}
	if b.Repeated {
		fmt.Printf("nothing was booked: reference %q was booked on %s\n", b.Reference, b.CreatedAt.Format(time.RFC3339))
		return caddy.ExitCodeSuccess, nil
	}
	done := map[string]string{"deposit": "deposited to", "withdraw": "withdrawn from"}[name]
	fmt.Printf("%s %s %s, available %s %s\n", amount, done, args[0], b.Available, b.Currency)
	return caddy.ExitCodeSuccess, nil
}

func runCredit(cmd *cobra.Command, args []string) (int, error) {
	amount, err := ledger.ParseAmount(args[2])
	if err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	order := creditArgs{Payee: args[0], AgentID: args[1], Amount: amount}
	order.Memo, _ = cmd.Flags().GetString("memo")
	if expires, _ := cmd.Flags().GetString("expires"); expires != "" {
		if order.ExpiresAt, err = parseTime(expires); err != nil {
			return caddy.ExitCodeFailedStartup, err
		}
	}
	var issued api.Credit
	if err := perform(cmd, "credit", optional(args, 3), order, &issued); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, issued) {
		fmt.Printf("%s: %s may use %s %s at %s\n", issued.CreditID, issued.AgentID, issued.Amount, issued.Currency, issued.Payee)
	}
	return caddy.ExitCodeSuccess, nil
}

func runExplain(cmd *cobra.Command, args []string) (int, error) {
	var e explained
	if err := perform(cmd, "explain", optional(args, 1), explainArgs{RequestID: args[0]}, &e); err != nil {
		return caddy.ExitCodeFailedStartup, err
	}
	if !printJSON(cmd, e) {
		e.print(os.Stdout)
	}
	return caddy.ExitCodeSuccess, nil
}

func jsonWanted(cmd *cobra.Command) bool {
	wanted, _ := cmd.Flags().GetBool("json")
	return wanted
}

// printJSON prints the result as JSON if the flag --json is set.
func printJSON(cmd *cobra.Command, result any) bool {
	if !jsonWanted(cmd) {
		return false
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(result)
	return true
}

// perform does a task on the ledger that the command's flags name. If a running server has the ledger open, the server does the task.
// Otherwise the command works on the file itself.
func perform(cmd *cobra.Command, name, file string, args, result any) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return err
	}
	place, err := findBooks(cmd, file)
	if err != nil {
		return err
	}
	var answer bytes.Buffer
	if err := place.perform(name, raw, &answer); err != nil {
		return err
	}
	return json.Unmarshal(answer.Bytes(), result)
}

// perform does the task and writes its result to w.
func (p *place) perform(name string, args []byte, w io.Writer) error {
	if p.serverHolds() {
		return p.ask(name, args, w)
	}
	return p.do(tasks[name], args, w)
}

// place is where the ledger is: a store, and the admin endpoint of the server that may have the store open.
type place struct {
	store    StoreModule
	currency string
	issuer   api.Issuer   // the operator, as the config's invoices name it
	rules    escrow.Rules // the rules of the config; what is due by them is done before the task
	address  string
}

// findBooks finds the store in the config. If the command names a file, that file is the store.
func findBooks(cmd *cobra.Command, file string) (*place, error) {
	config, _ := cmd.Flags().GetString("config")
	adapter, _ := cmd.Flags().GetString("adapter")
	address, _ := cmd.Flags().GetString("address")
	p := new(place)
	var raw []byte
	if file == "" || config != "" {
		var err error
		if raw, config, _, err = caddycmd.LoadConfig(config, adapter); err != nil {
			return nil, err
		}
		if len(raw) == 0 && file == "" {
			return nil, errors.New("no ledger is given, and there is no Caddyfile in this folder: name one with --config, or name the ledger's file")
		}
	}
	var err error
	if p.address, err = caddycmd.DetermineAdminAPIAddress(address, raw, config, adapter); err != nil {
		return nil, err
	}
	if file != "" {
		path, err := filepath.Abs(file)
		p.store = &BoltStore{Path: path}
		return p, err
	}
	return p, p.fromConfig(raw)
}

func (p *place) fromConfig(raw []byte) error {
	var config struct {
		Apps struct {
			Tallygate *App `json:"tallygate"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return fmt.Errorf("reading the config: %w", err)
	}
	app := config.Apps.Tallygate
	if app == nil {
		return errors.New("the config has no global option tallygate, so it names no ledger")
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	store, err := app.loadStore(ctx)
	if err != nil {
		return err
	}
	p.store, p.currency, p.issuer = store, app.Currency, app.Invoice
	app.logger = zap.NewNop()
	if err := app.provisionRules(); err != nil {
		return err
	}
	p.rules = app.rules
	return nil
}

// serverHolds reports whether a server answers at the admin endpoint and has this store open.
func (p *place) serverHolds() bool {
	response, err := caddycmd.AdminAPIRequest(p.address, "GET", adminPath+"store", nil, nil)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var held heldStore
	return json.NewDecoder(response.Body).Decode(&held) == nil && held.Store == p.store.Key()
}

// ask makes the server do the task.
func (p *place) ask(name string, args []byte, w io.Writer) error {
	response, err := caddycmd.AdminAPIRequest(p.address, "POST", adminPath+name, nil, bytes.NewReader(args))
	if err != nil {
		return answered(err)
	}
	defer response.Body.Close()
	_, err = io.Copy(w, response.Body)
	return err
}

// do does the task on the store itself. It fails if the store does not exist.
func (p *place) do(t task, args []byte, w io.Writer) error {
	store, err := p.open(t.readOnly)
	if err != nil {
		return err
	}
	defer store.Close()
	books, err := ledger.New(store, ledger.Options{Currency: p.currency})
	if err != nil {
		return err
	}
	return t.run(context.Background(), bench{escrow.New(books, p.rules), store}, args, w)
}

func (p *place) open(readOnly bool) (ledger.Store, error) {
	file, is := p.store.(*BoltStore)
	if !is {
		return p.store.Open()
	}
	if _, err := os.Stat(file.Path); err != nil {
		return nil, err
	}
	return bolt.Open(file.Path, bolt.Options{ReadOnly: readOnly})
}

// runReconcile returns the exit code 1 if something differs, and 2 if nothing could be compared.
func runReconcile(cmd *cobra.Command, args []string) (int, error) {
	provider, _ := cmd.Flags().GetString("provider")
	var asked reconcileArgs
	asked.Payee, _ = cmd.Flags().GetString("payee")
	asked.Route, _ = cmd.Flags().GetString("route")
	file, err := os.Open(args[0])
	if err != nil {
		return exitNotChecked, err
	}
	defer file.Close()
	if asked.Lines, err = readReport(provider, file); err != nil {
		return exitNotChecked, err
	}
	var r reconciled
	if err := perform(cmd, "reconcile", optional(args, 1), asked, &r); err != nil {
		return exitNotChecked, err
	}
	if !printJSON(cmd, r) {
		r.print(os.Stdout)
	}
	if r.Differences > 0 {
		return exitBad, fmt.Errorf("the report and the charges differ: %d", r.Differences)
	}
	return exitGood, nil
}
