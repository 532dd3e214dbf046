// Package scene is what the programs of this folder share: agents with play money, waiting for a time, and the comparison of balances at
// the end. If something is not as it should be, the program ends.
package scene

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tallygate/tallygate/docs/examples/go/tallygate"
)

// URL is where the server is: TALLYGATE_URL, or the demo shop.
func URL() string {
	if url := os.Getenv("TALLYGATE_URL"); url != "" {
		return url
	}
	return "http://localhost:8402"
}

// Customer is a new agent with the faucet's 100 in its wallet.
func Customer(name string) tallygate.Agent {
	agent := Provider(name)
	if err := agent.Call("POST", "/faucet", struct{}{}, nil); err != nil {
		noShop(err)
	}
	return agent
}

// Provider is a new agent with nothing in its wallet.
func Provider(name string) tallygate.Agent {
	agent, err := tallygate.Register(URL(), name)
	if err != nil {
		noShop(err)
	}
	return agent
}

func noShop(err error) {
	var refusal *tallygate.Refusal
	if errors.As(err, &refusal) {
		fail("%s: %v\nThese programs need a shop with open registration and a faucet, as the demo's is.", URL(), err)
	}
	fail("no Tallygate at %s (%v): open the demo shop by `go run ./cmd/tallygate run`, or set TALLYGATE_URL", URL(), err)
}

// HoursOfAWeek is how long a week lasts: some seconds, unless --hours says otherwise.
func HoursOfAWeek() float64 {
	hours := flag.Float64("hours", 0.001, "how long a week lasts; 168 for a real one")
	flag.Parse()
	return *hours
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

// Title says what the program is about to do.
func Title(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// Say tells what has happened.
func Say(format string, args ...any) { fmt.Printf("  "+format+"\n", args...) }

// Must returns the value of a call that can't fail here, or ends the program.
func Must[T any](value T, err error) T {
	Do(err)
	return value
}

// Do ends the program if something failed that can't fail here.
func Do(err error) {
	if err != nil {
		fail("%v", err)
	}
}

// Expect ends the program if a value is not as it should be.
func Expect[T comparable](what string, got, want T) {
	if got != want {
		fail("%s: %v, expected %v", what, got, want)
	}
}

// Refused ends the program if err is not the expected refusal, such as "402 insufficient_funds". It returns the server's explanation.
func Refused(want string, err error) string {
	var refusal *tallygate.Refusal
	if !errors.As(err, &refusal) {
		fail("the error is %v, expected %s", err, want)
	}
	Expect("the refusal", fmt.Sprintf("%d %s", refusal.Status, refusal.Code), want)
	return refusal.Detail
}

// Wait waits until a condition holds. It ends the program if that takes longer than hours plus a minute.
func Wait(what string, hours float64, condition func() bool) {
	deadline := time.Now().Add(time.Duration(hours*float64(time.Hour)) + time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			fail("%s: not after %v hours and a minute", what, hours)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Balance is an agent, and the balance that its wallet should have.
type Balance struct {
	Name   string
	Agent  tallygate.Agent
	Amount string
}

// Reckon compares the balances of agents with what they should be, and prints them.
func Reckon(balances ...Balance) {
	var all []string
	for _, b := range balances {
		balance := Must(b.Agent.Balance())
		Expect("balance of "+b.Name, balance, b.Amount)
		all = append(all, b.Name+" "+balance)
	}
	fmt.Println("balances, as they should be:", strings.Join(all, ", "))
}
