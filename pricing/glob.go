package pricing

import "strings"

// match matches a name with a glob: * is any run of characters, / included, and ? is one. Case counts for nothing, so that
// no spelling that a provider takes too reaches a cheaper line. It takes time linear in the name for each *.
func match(glob, name string) bool {
	return matchFolded(strings.ToLower(glob), strings.ToLower(name))
}

func matchFolded(glob, name string) bool {
	g, n := 0, 0
	star, resume := -1, 0
	for n < len(name) {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, resume = g, n
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == name[n]):
			g, n = g+1, n+1
		case star >= 0: // let the last * take one more
			resume++
			g, n = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(glob[g:], "*") == ""
}
