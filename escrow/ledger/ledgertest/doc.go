// Package ledgertest is what every store of a ledger must pass, a plain store in memory, and tools to test ledgers with.
package ledgertest
