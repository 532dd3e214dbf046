package wire

import (
	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
	"github.com/tallygate/tallygate/meter/tokens"
)

// Prompt estimates the tokens of a request by the texts at the rules' paths, with a fixed number for each value at a path
// that is marked, and for the whole.
type Prompt struct {
	paths              *skim.Paths
	perMark, perPrompt int64
}

// NewPrompt compiles a Prompt.
func NewPrompt(perMark, perPrompt int64, texts, marks []string) *Prompt {
	var patterns []skim.Pattern
	for _, path := range texts {
		patterns = append(patterns, skim.Pattern{Path: path, Kind: skim.Text})
	}
	for _, path := range marks {
		patterns = append(patterns, skim.Pattern{Path: path, Kind: skim.Mark})
	}
	return &Prompt{skim.Compile(patterns), perMark, perPrompt}
}

// maxPrompt bounds the text of a prompt that is tokenised, in bytes; what is longer is taken to be like its beginning.
const maxPrompt = 256 << 10

// Tokens estimates the tokens of the call's input.
func (p *Prompt) Tokens(c *meter.Call) int64 {
	encoding := tokens.ForModel(c.Model)
	sink := promptSink{text: tokens.NewText(encoding)}
	skim.New(p.paths, &sink).Write(c.Body)
	n := sink.text.Count()
	if sink.size > maxPrompt {
		n = n * sink.size / maxPrompt
	}
	if sink.marks > 0 {
		n += encoding.Prompt
	}
	return max(0, n+sink.marks*p.perMark+p.perPrompt)
}

// promptSink counts the beginning of a prompt's text.
type promptSink struct {
	text  *tokens.Text
	size  int64 // bytes of all the text
	last  int
	marks int64
}

func (s *promptSink) Value(int, []byte) {}

func (s *promptSink) Mark(int) { s.marks++ }

func (s *promptSink) Text(i int, piece []byte) {
	if i != s.last {
		s.last = i
		s.text.Break()
	}
	if room := maxPrompt - s.size; room > 0 {
		s.text.Write(piece[:min(int64(len(piece)), room)])
	}
	s.size += int64(len(piece))
}
