// Package docs has the pages of the guide, so that a gateway can show them.
package docs

import "embed"

// Pages are the pages of the guide, in Markdown. README.md is the first one.
//
//go:embed *.md
var Pages embed.FS
