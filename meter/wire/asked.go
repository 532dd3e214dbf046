package wire

import (
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/tallygate/tallygate/meter"
)

// AskCharacters notes how many characters of text the request wants spoken: those of the longest of the fields, one of which its API reads.
func (r *Request) AskCharacters(c *meter.Call, fields ...string) {
	most := int64(-1)
	for _, field := range fields {
		if v := r.Get(field); v.Type == gjson.String {
			most = max(most, int64(utf8.RuneCountInString(v.String())))
		}
	}
	if most < 0 {
		c.Unsaid = meter.InputCharacter
		return
	}
	c.Asked = meter.Units{meter.InputCharacter: meter.Whole(most)}
}

// AskImages notes how many images the request asks for: one, unless it says otherwise.
func (r *Request) AskImages(c *meter.Call) {
	c.Asked = meter.Units{meter.AskedImage: meter.Whole(max(1, c.Choices))}
}

// AskSeconds notes how many seconds of video the request asks for, in each of its answers: the most that a field says, which may be a number
// or a text of one.
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

// askSeconds notes what a field says. A second that has begun counts, since some providers round; what they might round to nothing, they might
// take for their default.
func (r *Request) askSeconds(c *meter.Call, field, text string) {
	q, ok := meter.DecimalQuantity(text)
	if !ok || q < meter.Whole(1) {
		r.Refuse(field, "expected a number of seconds, one at the least")
		return
	}
	c.Asked[meter.AskedSecond] = max(c.Asked[meter.AskedSecond], meter.Whole(q.Ceil()))
}
