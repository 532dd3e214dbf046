package pricing

import (
	"strings"
	"unicode/utf8"
)

// match reports whether a glob matches the whole of a name: * stands for any run of characters, / included, and ? for one
// character. There is no escape. Case counts for nothing: providers take a model's name in any case, and another spelling
// must not reach a cheaper line.
//
// Names come from clients, so the time is at most the name's length times the glob's. That of tidwall/match is exponential
// in the number of *, and it takes a backslash for an escape.
func match(glob, name string) bool {
	return matchFolded(strings.ToLower(glob), strings.ToLower(name))
}

// matchFolded is match for a glob and a name that are in lower case.
func matchFolded(glob, name string) bool {
	g, n := 0, 0
	star, resume := -1, 0
	for n < len(name) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, resume = g, n
			g++
		case g < len(glob) && glob[g] == '?':
			_, size := utf8.DecodeRuneInString(name[n:])
			g, n = g+1, n+size
		case g < len(glob) && glob[g] == name[n]:
			g, n = g+1, n+1
		case star >= 0: // let the last * take one more byte
			resume++
			g, n = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(glob[g:], "*") == ""
}
