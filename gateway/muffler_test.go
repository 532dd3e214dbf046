package gateway

import (
	"bytes"
	"strings"
	"testing"
)

var muffled = []struct{ in, out string }{
	{": tallygate request=req_1 charge=0\ndata: x\n\n", ": \ndata: x\n\n"},
	{":tallygate\n: TallyGate charge\r\n:  \ttallygate\r: x\n", ":\n: \r\n:  \t\r: x\n"},
	{"\xEF\xBB\xBF: tallygate a\ndata: : tallygate\n", "\xEF\xBB\xBF: \ndata: : tallygate\n"},
	{": tallygatepost\n: tally\n: tallygat\r\n: tall", ": \n: tally\n: tallygat\r\n: "},
	{"tallygate\n : tallygate\n:: tallygate\n\n\n:\n", "tallygate\n : tallygate\n:: tallygate\n\n\n:\n"},
	{": ttallygate\n: t\xf4llygate\n: tallygate", ": ttallygate\n: t\xf4llygate\n: "},
}

func TestMuffler(t *testing.T) {
	t.Parallel()
	for _, test := range muffled {
		for size := 1; size <= len(test.in); size++ {
			var m muffler
			var out []byte
			for p := []byte(test.in); len(p) > 0; p = p[min(size, len(p)):] {
				out = m.write(out, p[:min(size, len(p))])
			}
			if string(out) != test.out {
				t.Errorf("%q in pieces of %d: %q, want %q", test.in, size, out, test.out)
			}
		}
	}
}

// FuzzMuffler cuts any stream in two. Nothing in Tallygate's name may stay, nothing else may be removed, and no more may be held back than
// a part of that name.
func FuzzMuffler(f *testing.F) {
	for i, test := range muffled {
		f.Add([]byte(test.in), uint(i))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		var m, whole muffler
		cut = min(cut, uint(len(in)))
		out := m.write(m.write(nil, in[:cut]), in[cut:])
		if len(m.held) >= len(ourName) {
			t.Errorf("%q is held", m.held)
		}
		if want := whole.write(nil, in); !bytes.Equal(out, want) {
			t.Errorf("cut at %d: %q, whole: %q", cut, out, want)
		}
		lines := func(p []byte) []string {
			return strings.Split(strings.ReplaceAll(string(bytes.TrimPrefix(p, []byte("\xEF\xBB\xBF"))), "\r", "\n"), "\n")
		}
		before, after := lines(in), lines(append(out, m.held...))
		if len(before) != len(after) {
			t.Fatalf("%q has other lines than %q", out, in)
		}
		for i, line := range before {
			comment, is := strings.CutPrefix(line, ":")
			is = is && len(comment) > 0 && strings.HasPrefix(strings.ToLower(strings.TrimLeft(comment, " \t")), ourName)
			markMayStandHere := i == 0 && line != "" && line[0] >= 0x80 // a byte order mark, or a part of one
			if is != (line != after[i]) && !markMayStandHere {
				t.Errorf("%q became %q", line, after[i])
			}
		}
	})
}
