package pricing

import (
	"strings"
	"unicode/utf8"
)

// match is MatchExact for the name of a model, in which case does not matter: providers accept it in any case, and another spelling must not
// lead to a cheaper line.
func match(glob, name string) bool {
	return MatchExact(strings.ToLower(glob), strings.ToLower(name))
}

// MatchExact reports whether a glob matches a whole name. * stands for any characters, including /, and ? for one character. There is no
// escape. Case matters.
//
// Names come from clients, so the time is at most the length of the name times that of the glob. The time of tidwall/match is exponential
// in the number of *, and it takes a backslash for an escape.
func MatchExact(glob, name string) bool {
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
		case star >= 0: // let the last * match one more byte
			resume++
			g, n = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(glob[g:], "*") == ""
}
