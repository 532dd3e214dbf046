// Package ledgertest is what every store of a ledger must pass ([Run]), a plain store in memory ([Memory]), ways to have a
// store run operations more than once ([Twice], [Again]), and a language to write cases in:
//
//	deposit alice 10 -> ok
//	hold h1 alice 6 -> ok
//	pay alice bob 5 -> insufficient_funds
//	pay alice bob 5 by h1 -> ok
//
// One line is one step; behind the arrow is what it must answer. [Script] lists the steps.
package ledgertest
