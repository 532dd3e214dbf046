package wire

import (
	"math/rand/v2"
	"strings"

	"github.com/tallygate/tallygate/meter"
	"github.com/tallygate/tallygate/meter/skim"
	"github.com/tallygate/tallygate/meter/tokens"
)

// Prompt estimates the tokens of a request from the texts at the rules' paths. It adds a fixed number for each value at a marked path, and
// for the whole request. Text in all other places counts as well, because nobody knows what a provider makes a part of the prompt: schemas of
// tools and of the answer, documents, fields that only this provider has. Else a payer would put its prompt there. So does each number in an array,
// since a prompt may be given as the ids of its tokens.
type Prompt struct {
	paths              *skim.Paths
	perMark, perPrompt int64
	others             int // the index of texts in other places
}

// nameKeys are keys of requests whose values are no text of the prompt as long as they are short: names, ids and the like. So are all keys of the
// request itself. quietKeys are no text themselves, but their values are. Values of opaqueKeys are read by no model as they are.
var (
	nameKeys = strings.Fields("type role id object status format detail model name mode kind index call_id callId tool_call_id tool_use_id toolUseId " +
		"url image_url fileUri media_type mime_type mimeType ttl phase $ref")
	quietKeys = strings.Fields("input text content contents parts part source file_data inlineData inline_data data cache_control cachePoint function " +
		"arguments strict parameters inputSchema input_schema json schema json_schema properties required additionalProperties items anyOf oneOf " +
		"allOf $defs definitions enum const default description title minimum maximum")
	opaqueKeys = strings.Fields("signature thoughtSignature thought_signature encrypted_content encrypted_index encrypted_stdout reasoningSignature")
)

// A name, or a key, of at most shortName bytes does not count, until all of them together have maxNames.
const (
	shortName = 64
	maxNames  = 1 << 10
)

// NewPrompt compiles a Prompt.
func NewPrompt(perMark, perPrompt int64, texts, marks []string) *Prompt {
	var patterns []skim.Pattern
	for _, path := range texts {
		patterns = append(patterns, skim.Pattern{Path: path, Kind: skim.Text})
	}
	for _, path := range marks {
		patterns = append(patterns, skim.Pattern{Path: path, Kind: skim.Mark})
	}
	p := &Prompt{skim.Compile(patterns), perMark, perPrompt, len(patterns)}
	p.paths.Others(p.others, nameKeys, quietKeys, opaqueKeys)
	return p
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
	sink := promptSink{others: p.others, first: tokens.NewText(encoding), rest: tokens.NewText(encoding), oneIn: max(1, len(c.Body)/maxPrompt)}
	skim.New(p.paths, &sink).Write(c.Body)
	n := sink.tokens()
	if sink.marks > 0 {
		n += encoding.Prompt
	}
	return max(0, n+sink.marks*p.perMark+p.perPrompt)
}

// tokens estimates what was written so far.
func (s *promptSink) tokens() int64 {
	n := s.first.Count()
	switch {
	case s.sampled > 0:
		n += s.rest.Count() * s.beyond / s.sampled
	case s.beyond > 0:
		n += n * s.beyond / maxPrompt
	}
	return n + s.ids
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
	others      int    // the index of texts in other places, and after it that of names
	names       int    // bytes of names
	ids         int64  // numbers in arrays
	head        []byte // the beginning of the present one, until it is known whether it counts
	state       verdict
}

// verdict says whether a text in another place counts.
type verdict uint8

const (
	unsure verdict = iota
	counts
	ignored // a picture, a recording or a file
)

func (s *promptSink) Value(int, []byte) {}

func (s *promptSink) Mark(i int) {
	if i > s.others { // a number in an array: tokens may be given by their ids
		s.ids++
		return
	}
	s.marks++
}

func (s *promptSink) Text(i int, piece []byte) {
	if i >= s.others {
		piece = s.other(i > s.others, piece)
	}
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

// mediaHead is how much of a text is read to find out whether it is a file in base64.
const mediaHead = 256

// other returns what counts of a piece of a text in another place. It is nil at the end of the text.
func (s *promptSink) other(isName bool, piece []byte) []byte {
	if piece == nil {
		whole, state := s.head, s.state
		s.head, s.state = s.head[:0], unsure
		switch {
		case state != unsure:
			return nil
		case isName && len(whole) <= shortName && s.names+len(whole) <= maxNames:
			s.names += len(whole)
			return nil
		}
		return whole
	}
	switch s.state {
	case counts:
		return piece
	case ignored:
		return nil
	}
	if s.head = append(s.head, piece...); len(s.head) < mediaHead {
		return nil
	}
	if mediaOf(s.head) != "" {
		s.state = ignored
		return nil
	}
	s.state = counts
	return s.head
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
