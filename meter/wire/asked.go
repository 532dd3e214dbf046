package wire

import (
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// AskCharacters notes how many characters of text are to be spoken. If several of the fields are there, the longest counts, since its API
// reads only one of them. One that is no text is refused: the API may speak it all the same.
func (r *Request) AskCharacters(c *meter.Call, fields ...string) {
	most := int64(-1)
	for _, field := range fields {
		switch v := r.Get(field); {
		case v.Type == gjson.String:
			most = max(most, int64(utf8.RuneCountInString(v.String())))
		case v.Exists() && v.Type != gjson.Null:
			r.Refuse(field, "expected a text")
		}
	}
	if most < 0 {
		c.Unsaid = meter.InputCharacter
		return
	}
	c.Asked = meter.Units{meter.InputCharacter: meter.Whole(most)}
}

// AskImages notes how many images the request asks for: one, unless a field says otherwise.
func (r *Request) AskImages(c *meter.Call) {
	c.Asked = meter.Units{meter.AskedImage: meter.Whole(max(1, c.Choices))}
}

// AskSeconds notes how many seconds of video the request asks for, for all its answers. Of several fields the largest counts. A field may
// be a number, or a text with a number.
func (r *Request) AskSeconds(c *meter.Call, fields ...string) {
	if c.Asked == nil {
		c.Asked = meter.Units{}
	}
	for _, field := range fields {
		if v := r.Get(field); v.Exists() && v.Type != gjson.Null {
			r.askSeconds(c, field, v.String())
		}
	}
	if c.Asked[meter.AskedSecond] == 0 {
		c.Asked, c.Unsaid = nil, meter.AskedSecond
		return
	}
	each := c.Asked[meter.AskedSecond]
	for range min(max(1, c.Choices), maxVideos) - 1 {
		c.Asked.Add(meter.AskedSecond, each)
	}
	if c.Choices > maxVideos {
		r.Refuse("n", "expected at most 1000 videos")
	}
}

const maxVideos = 1000

// askSeconds notes the seconds of one field. A part of a second counts as a whole one, since some providers round up. Less than one second
// is refused: a provider might round it to zero, and then use its default.
func (r *Request) askSeconds(c *meter.Call, field, text string) {
	q, ok := meter.DecimalQuantity(text)
	if !ok || q < meter.Whole(1) {
		r.Refuse(field, "expected a number of seconds, at least one")
		return
	}
	c.Asked[meter.AskedSecond] = max(c.Asked[meter.AskedSecond], meter.Whole(q.Ceil()))
}
