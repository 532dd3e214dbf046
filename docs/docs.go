// Package docs has the pages of the guide, so that a gateway can show them.
package docs

import "embed"

// Pages are the pages of the guide, in Markdown, and their pictures. README.md is the first page, of the guide and of a folder.
//
//go:embed *.md *.webp guides/*.md
var Pages embed.FS
