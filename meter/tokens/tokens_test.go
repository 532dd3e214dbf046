package tokens_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/tiktoken-go/tokenizer/codec"
	"pgregory.net/rapid"

	"github.com/tallygate/tallygate/meter/tokens"
)

const prose = "The quick brown fox jumps over the lazy dog, again and again; 12345 times in 2026! Naïve café — 東京の天気は晴れです。\n\n\tif x == nil {\n\t\treturn errors.New(\"x\")\n\t}\n"

func exact(t testing.TB, text string) int64 {
	n, err := codec.NewO200kBase().Count(text)
	if err != nil {
		t.Fatal(err)
	}
	return int64(n)
}

func TestForModel(t *testing.T) {
	for model, want := range map[string]string{
		"gpt-4o-mini": "o200k_base", "openai/gpt-4o": "o200k_base", "GPT-4.1": "o200k_base", "ft:gpt-4o:org::id": "o200k_base", "o3-mini": "o200k_base",
		"gpt-4": "cl100k_base", "gpt-4-0613": "cl100k_base", "gpt-35-turbo": "cl100k_base", "text-embedding-3-small": "cl100k_base",
		"openai.gpt-oss-120b-1:0": "o200k_harmony", "claude-haiku-4-5": "claude", "us.anthropic.claude-3-7-sonnet-20250219-v1:0": "claude",
		"models/gemini-2.5-flash": "gemini", "llama3": "llama", "palmyra-x4": "palmyra", "nova": "other", "": "other",
	} {
		if got := tokens.ForModel(model).Name; got != want {
			t.Errorf("%q has the encoding %s, want %s", model, got, want)
		}
	}
}

// TestPieces: cut anywhere, a text counts as it does whole, but for a cut in a text without spaces.
func TestPieces(t *testing.T) {
	text := strings.Repeat(prose, 200)
	want := exact(t, text)
	rapid.Check(t, func(t *rapid.T) {
		c := tokens.NewText(tokens.ForModel("gpt-4o"))
		for rest := text; rest != ""; {
			n := min(rapid.IntRange(1, 5000).Draw(t, "n"), len(rest))
			c.Write([]byte(rest[:n]))
			rest = rest[n:]
			low, high := c.Low(), c.High()
			if low > high {
				t.Fatalf("low %d, high %d", low, high)
			}
		}
		if got := c.Count(); got < want-want/500 || got > want+want/500 {
			t.Fatalf("counted %d, whole %d", got, want)
		}
	})
}

// TestBounds: Low is not above what is counted, and High not below, for any kind of text.
func TestBounds(t *testing.T) {
	for _, text := range []string{
		prose, "supercalifragilisticexpialidocious", strings.Repeat(" ", 100), strings.Repeat("-", 500), strings.Repeat("\n", 99),
		strings.Repeat("नमस्ते दुनिया ", 20), strings.Repeat("안녕하세요 세계 ", 20), strings.Repeat("Здравствуй, мир! ", 20), strings.Repeat("สวัสดีชาวโลก", 20),
		strings.Repeat("internationalization ", 50), strings.Repeat("aGVsbG8gd29ybGQ", 40), "\x00\xff\xfe", strings.Repeat("🙂", 30), "", "a",
		strings.Repeat("|---|---|\n| 1 | 2 |\n", 30),
	} {
		c := tokens.NewText(tokens.ForModel("gpt-4o"))
		c.Write([]byte(text))
		low, high := c.Low(), c.High()
		if n := c.Count(); low > n || high < n {
			t.Errorf("%.30q: %d tokens, bounds %d and %d", text, n, low, high)
		}
	}
}

// TestBreak: no token spans a border between texts.
func TestBreak(t *testing.T) {
	c := tokens.NewText(tokens.ForModel("gpt-4o"))
	for range 1000 {
		c.Write([]byte("hel"))
		c.Break()
		c.Write([]byte("lo"))
		c.Break()
		c.Break()
	}
	if got, want := c.Count(), 1000*(exact(t, "hel")+exact(t, "lo")); got != want {
		t.Errorf("counted %d, want %d", got, want)
	}
	c.Reset()
	if got := c.Count(); got != 0 {
		t.Errorf("after Reset counted %d", got)
	}
}

// TestHostile: a run without a border is cut by force, so that the cost stays linear; the count stays near.
func TestHostile(t *testing.T) {
	for _, unit := range []string{"a", "é", "\xff", "aZ9", "\r\n", " ", "👩‍👩‍👧"} {
		text := strings.Repeat(unit, (1<<20)/len(unit))
		c := tokens.NewText(tokens.ForModel("gpt-4o"))
		c.Write([]byte(text))
		n := c.Count()
		if high := int64(len(text)); n <= 0 || n > high {
			t.Errorf("1 MiB of %q counted as %d tokens", unit, n)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("hello world", 3)
	f.Add("\xff\xfe\xed\xa0\x80", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		c := tokens.NewText(tokens.ForModel("gpt-4o"))
		for rest := []byte(text); len(rest) > 0; {
			n := min(max(size, 1), len(rest))
			c.Write(rest[:n])
			rest = rest[n:]
		}
		low, high := c.Low(), c.High()
		if n := c.Count(); n > high || n < 0 || low < 0 {
			t.Errorf("%q: counted %d, at most %d", text, n, high)
		}
	})
}

func BenchmarkText(b *testing.B) {
	text := []byte(strings.Repeat(prose, 20))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		c := tokens.NewText(tokens.ForModel("gpt-4o"))
		c.Write(text)
		c.Count()
	}
}

// TestOffThePath: whoever writes a long text does not wait until it is tokenised. Until then its bytes count.
func TestOffThePath(t *testing.T) {
	c := tokens.NewText(tokens.ForModel("gpt-4o"))
	const size = 4 << 10
	c.Write([]byte(strings.Repeat("word ", size)[:size]))
	if low, high := c.Low(), c.High(); low < size/5 || high < size {
		t.Errorf("%d to %d tokens, before it is looked at what was tokenised", low, high)
	}
	for !c.HasNews() {
		runtime.Gosched()
	}
	if low, high := c.Low(), c.High(); high < size {
		t.Errorf("%d to %d tokens: they have changed by themselves", low, high)
	}
	c.Settle()
	if low, high := c.Low(), c.High(); low < size/5 || high > size/2 || c.HasNews() {
		t.Errorf("%d to %d tokens", low, high)
	}
	if n, want := c.Count(), exact(t, strings.Repeat("word ", size)[:size]); n != want {
		t.Errorf("%d tokens, want %d", n, want)
	}
}
