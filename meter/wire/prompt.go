package wire

import (
	"math/rand/v2"

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

// The first bytes of a prompt are tokenised, up to maxPrompt; of what follows, samples of about as many bytes, which are drawn from all of it:
// whoever writes it can't know which, and make them cheaper than the rest.
const (
	maxPrompt  = 256 << 10
	sampleSize = 1 << 10
)

// Tokens estimates the tokens of the call's input.
func (p *Prompt) Tokens(c *meter.Call) int64 {
	encoding := tokens.ForModel(c.Model)
	sink := promptSink{first: tokens.NewText(encoding), rest: tokens.NewText(encoding), oneIn: max(1, len(c.Body)/maxPrompt)}
	skim.New(p.paths, &sink).Write(c.Body)
	n := sink.first.Count()
	switch {
	case sink.sampled > 0:
		n += sink.rest.Count() * sink.beyond / sink.sampled
	case sink.beyond > 0:
		n += n * sink.beyond / maxPrompt
	}
	if sink.marks > 0 {
		n += encoding.Prompt
	}
	return max(0, n+sink.marks*p.perMark+p.perPrompt)
}

// promptSink counts the beginning of a prompt's text, and samples of the rest.
type promptSink struct {
	first, rest *tokens.Text
	size        int64 // bytes of the beginning
	beyond      int64 // bytes of the rest
	sampled     int64 // bytes of the samples
	oneIn       int   // one piece of so many is a sample
	left        int   // bytes that are left of the piece that runs
	taken       bool  // it is a sample
	last        int
	marks       int64
}

func (s *promptSink) Value(int, []byte) {}

func (s *promptSink) Mark(int) { s.marks++ }

func (s *promptSink) Text(i int, piece []byte) {
	if i != s.last {
		s.last = i
		s.first.Break()
		s.rest.Break()
	}
	n := min(int64(len(piece)), maxPrompt-s.size)
	s.first.Write(piece[:n])
	s.size += n
	s.sample(piece[n:])
}

func (s *promptSink) sample(text []byte) {
	s.beyond += int64(len(text))
	for len(text) > 0 {
		if s.left == 0 {
			s.left, s.taken = sampleSize, rand.IntN(s.oneIn) == 0
			s.rest.Break()
		}
		n := min(s.left, len(text))
		if s.taken {
			s.rest.Write(text[:n])
			s.sampled += int64(n)
		}
		s.left -= n
		text = text[n:]
	}
}
