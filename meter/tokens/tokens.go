// Package tokens counts tokens locally, if a provider states none or its answer was cut.
//
// [ForModel] returns the [Encoding] of a model's family. A [Text] counts a text while it passes. It keeps the last few thousand bytes, and
// only a number for everything before them. So its memory is constant and its time linear, for any text. A long text is tokenised on another
// goroutine, so that whoever passes it on need not wait for that. Counts are exact if the model's
// vocabulary is public (OpenAI's), and otherwise estimates (docs/metering.md says how good they are).
package tokens

import (
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/tiktoken-go/tokenizer/codec"
)

// piece is about how many bytes are tokenised at a time. A Text is tokenised only when it has two pieces, or when Count is called.
const piece = 2 << 10

// counter is the part of a codec that is used.
type counter interface{ Count(string) (int, error) }

var (
	o200k  = sync.OnceValue(func() counter { return codec.NewO200kBase() })
	cl100k = sync.OnceValue(func() counter { return codec.NewCl100kBase() })
)

// ForModel returns the encoding of a model, by its name as the provider writes it ("gpt-4o-mini", "openai/gpt-4o",
// "us.anthropic.claude-3-7-sonnet-20250219-v1:0", "ft:gpt-4o:...").
func ForModel(model string) *Encoding {
	model = strings.ToLower(model)
	model = model[strings.LastIndexByte(model, '/')+1:]
	model = strings.TrimPrefix(model, "ft:")
	for range 3 { // a cloud puts a region and a vendor before the name: "us.anthropic."
		for i := range families {
			for _, prefix := range families[i].prefixes {
				if strings.HasPrefix(model, prefix) {
					return &families[i].Encoding
				}
			}
		}
		_, rest, found := strings.Cut(model, ".")
		if !found {
			break
		}
		model = rest
	}
	return &otherFamily
}

// Count returns how many tokens text has.
func (e *Encoding) Count(text string) int64 {
	t := Text{enc: e}
	t.Write([]byte(text))
	return t.Count()
}

// Text counts the tokens of a text that comes in pieces.
type Text struct {
	enc     *Encoding
	folded  int64 // the codec's tokens of the text before behind
	behind  *part // the text before pending, while it is tokenised; nil if none is
	pending []byte
	extra   int64 // tokens that tool calls cost besides their text
	breaks  []int // the places in pending where one text ends and another begins
	runs    int64 // words and numbers in pending
	wide    int64 // characters outside of ASCII in pending, without repetitions
	last    kind
	before  byte
}

// NewText returns a Text for the encoding.
func NewText(e *Encoding) *Text { return &Text{enc: e} }

// part is a text that is tokenised on a goroutine of its own.
type part struct {
	size       int
	runs, wide int64         // as in Text
	counted    chan struct{} // closed when it is
	tokens     int64         // read only after that
}

// Empty reports whether no text was written.
func (t *Text) Empty() bool { return t.folded == 0 && t.behind == nil && len(t.pending) == 0 }

// Call says that the text that was just written is the name of a tool that is called. A tool call costs tokens besides its text.
func (t *Text) Call() { t.extra += t.enc.call }

// Reset forgets everything that was written.
func (t *Text) Reset() {
	t.join()
	t.folded, t.extra, t.pending, t.breaks = 0, 0, t.pending[:0], t.breaks[:0]
	t.runs, t.wide, t.last, t.before = 0, 0, other, 0
}

// Write adds to the text. It waits for a tokenizer only if it gets text faster than that can count it.
func (t *Text) Write(p []byte) {
	for len(p) > 0 {
		n := min(len(p), 2*piece-len(t.pending))
		t.note(p[:n])
		t.pending = append(t.pending, p[:n]...)
		p = p[n:]
		if len(t.pending) >= 2*piece {
			t.join()
			t.fold(cut(t.pending))
		}
	}
}

// Break says that another text follows, so that no token extends over the border.
func (t *Text) Break() {
	if n := len(t.pending); n > 0 && (len(t.breaks) == 0 || t.breaks[len(t.breaks)-1] != n) {
		t.breaks = append(t.breaks, n)
	}
}

// Count returns the tokens of the text and of its tool calls. It tokenises everything that was written.
func (t *Text) Count() int64 {
	t.join()
	if len(t.pending) > 0 {
		t.folded += t.count(t.take(len(t.pending)))
	}
	return (t.folded*t.enc.typical+500)/1000 + t.extra
}

// Answer returns Count plus the tokens that an answer has besides its text. It returns 0 if no text was written.
func (t *Text) Answer() int64 {
	if t.Empty() {
		return 0
	}
	return t.Count() + t.enc.answer
}

// Low is a quick estimate of the lowest that Count can be: one token for each word and number, since no token extends over two, and one
// token for eight characters of scripts that have no spaces between words.
func (t *Text) Low() int64 {
	sum := t.folded + t.runs + t.wide/8
	if t.behind != nil {
		sum += t.behind.runs + t.behind.wide/8
	}
	return sum * t.enc.least / 1000
}

// High is a quick estimate of the highest that Answer can be: one token for each byte.
func (t *Text) High() int64 {
	sum := t.folded + int64(len(t.pending))
	if t.behind != nil {
		sum += int64(t.behind.size)
	}
	return (sum*t.enc.most+999)/1000 + t.extra + t.enc.answer
}

// Settle takes in what was tokenised since. It does not wait: Low and High, which do not change by themselves, come closer to each other by it.
func (t *Text) Settle() {
	if t.HasNews() {
		t.join()
	}
}

// HasNews reports whether Settle would change Low and High.
func (t *Text) HasNews() bool {
	if t.behind == nil {
		return false
	}
	select {
	case <-t.behind.counted:
		return true
	default:
		return false
	}
}

type kind uint8

const (
	other kind = iota
	letter
	digit
)

// note counts the words, numbers and wide characters of p, which Low needs.
func (t *Text) note(p []byte) {
	for _, c := range p {
		k := other
		switch {
		case isLetter(c), c >= utf8.RuneSelf, c == '\'' && t.last == letter:
			k = letter
		case c >= '0' && c <= '9':
			k = digit
		}
		if k != other && k != t.last {
			t.runs++
		}
		if c >= utf8.RuneSelf && c != t.before && utf8.RuneStart(c) {
			t.wide++
		}
		t.last, t.before = k, c
	}
}

// fold has the first n bytes of pending tokenised, and forgets them. Nothing may be tokenised at the time.
func (t *Text) fold(n int) {
	p := &part{size: n, runs: t.runs, wide: t.wide, counted: make(chan struct{})}
	texts := t.take(n)
	p.runs, p.wide = max(0, p.runs-t.runs), max(0, p.wide-t.wide)
	t.behind = p
	go func() {
		defer close(p.counted)
		p.tokens = t.count(texts)
	}()
}

// join waits until what is tokenised is counted.
func (t *Text) join() {
	if t.behind == nil {
		return
	}
	<-t.behind.counted
	t.folded += t.behind.tokens
	t.behind = nil
}

// take removes the first n bytes of pending, and returns the texts in them.
func (t *Text) take(n int) (texts []string) {
	start, kept := 0, t.breaks[:0]
	for _, at := range t.breaks {
		if at < n {
			texts = append(texts, string(t.pending[start:at]))
			start = at
		} else if at > n {
			kept = append(kept, at-n)
		}
	}
	texts = append(texts, string(t.pending[start:n]))
	t.breaks = kept
	t.pending = t.pending[:copy(t.pending, t.pending[n:])]
	t.runs, t.wide, t.last, t.before = 0, 0, other, 0
	t.note(t.pending)
	return texts
}

// count returns the codec's tokens of texts.
func (t *Text) count(texts []string) (sum int64) {
	for _, text := range texts {
		sum += t.enc.tokens(text)
	}
	return sum
}

// tokens returns the codec's tokens of a text. If the codec gives up, these are assumed to have three bytes each.
func (e *Encoding) tokens(text string) (n int64) {
	defer func() {
		if recover() != nil { // on a goroutine of its own, a panic would end the process
			n = int64(len(text)+2) / 3
		}
	}()
	counted, err := e.codec().Count(text)
	if err != nil { // of the codec's pattern matcher
		return int64(len(text)+2) / 3
	}
	return int64(counted)
}

// cut finds a place where the text can be cut so that no token extends over the cut: before the space of the last " word". A text without
// one in its second half is cut at the beginning of a character.
func cut(text []byte) int {
	half := len(text) / 2
	for i := len(text) - 1; i > half; i-- {
		if text[i] == ' ' && isLetter(text[i-1]) && i+1 < len(text) && isLetter(text[i+1]) {
			return i
		}
	}
	for i := len(text) - 1; i > len(text)-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			return i
		}
	}
	return len(text)
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
