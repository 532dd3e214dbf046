// Package ledgertest tests stores of a ledger. Every store must pass [Run]. [Memory] is a simple store in memory. [Twice] and [Again] make
// any store run operations more than once, as stores are allowed to. Test cases are written in a small language:
//
//	deposit alice 10 -> ok
//	hold h1 alice 6 -> ok
//	pay alice bob 5 -> insufficient_funds
//	pay alice bob 5 by h1 -> ok
//
// Each line is a step. The text after the arrow is the answer that the step must give. [Script] lists the steps.
package ledgertest
