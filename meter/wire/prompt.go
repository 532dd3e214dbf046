package wire

import (
	"math/rand/v2"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
	"github.com/tallygate/tallygate/meter/tokens"
)

// Prompt estimates the tokens of a request from the texts at the rules' paths. It adds a fixed number for each value at a marked path, and
// for the whole request.
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

// The beginning of a prompt is tokenised, up to maxPrompt bytes. Of the rest, about as many bytes are tokenised as samples from random
// places. So nobody who writes a prompt can know which parts are counted, and make those parts cheaper than the rest.
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
	oneIn       int   // one of this many pieces is a sample
	left        int   // bytes that are left of the present piece
	taken       bool  // the present piece is a sample
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
