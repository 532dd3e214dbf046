package progress

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

// last returns what a terminal shows after it has got a text: what follows the last return of the carriage.
func last(text string) string {
	text = strings.TrimRight(text, "\r")
	return text[strings.LastIndex(text, "\r")+1:]
}

func TestABarShowsEachStepAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	var terminal bytes.Buffer
	b := &Bar{to: &terminal}
	b.Show("transfers", 1, 4)
	if shown := last(terminal.String()); !strings.Contains(shown, "transfers") || !strings.Contains(shown, "1/4") {
		t.Errorf("at 1 of 4 transfers: %q", shown)
	}
	b.Show(Bytes, 3<<20, 0)
	if shown := last(terminal.String()); !strings.Contains(shown, "bytes") || !strings.Contains(shown, "3.0 MiB") {
		t.Errorf("after 3 MiB: %q", shown)
	}
	b.Show("charges", 9, 8) // one more than there were when the work began
	b.Show("charges", 10, 8)
	b.Clear()
	if shown := strings.TrimSpace(last(terminal.String())); shown != "" {
		t.Errorf("after the work the terminal shows %q", shown)
	}
	before := terminal.Len()
	b.Clear()
	if terminal.Len() != before {
		t.Error("a bar that was removed is removed again")
	}
}

func TestAWriterPassesAllOnAndCounts(t *testing.T) {
	t.Parallel()
	var terminal, file bytes.Buffer
	w := (&Bar{to: &terminal}).Writer(&file)
	if _, err := io.WriteString(w, strings.Repeat("x", 2048)); err != nil || file.Len() != 2048 {
		t.Fatalf("%d bytes passed, %v", file.Len(), err)
	}
	if shown := last(terminal.String()); !strings.Contains(shown, "2.0 KiB") {
		t.Errorf("after 2 KiB: %q", shown)
	}
}

func TestWhatIsNoTerminalHasNoBars(t *testing.T) {
	t.Parallel()
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := On(file)
	b.Show("transfers", 1, 4)
	if w := b.Writer(io.Discard); w != io.Discard {
		t.Errorf("what is written goes through %T", w)
	}
	b.Clear()
	if at, err := file.Seek(0, io.SeekCurrent); at != 0 || err != nil {
		t.Errorf("%d bytes were drawn, %v", at, err)
	}
}
