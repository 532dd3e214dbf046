// Package progress draws on a terminal how far long work of a command is.
package progress

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Bar is a bar for work of one or more steps. A step whose total is unknown shows what is done, and that the work goes on. A nil Bar draws
// nothing.
//
// Its methods are for one goroutine.
type Bar struct {
	to   io.Writer
	bar  *progressbar.ProgressBar
	step string
}

// On returns a bar that draws on a file, such as [os.Stderr]. It returns nil if the file is not a terminal: what a script reads, and what
// goes into a log, has no bars in it.
func On(file *os.File) *Bar {
	if !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	return &Bar{to: file}
}

// redraw is the least time between two drawings of a bar.
const redraw = 100 * time.Millisecond

// Show draws how many of what a step counts are done, and of how many. The total is 0 if it is unknown. The method is a
// [github.com/tallygate/tallygate/escrow/ledger.Progress].
func (b *Bar) Show(step string, done, total int64) {
	if b == nil {
		return
	}
	if b.bar == nil || b.step != step {
		b.Clear()
		b.step, b.bar = step, b.begin(step, total)
	}
	if total > 0 && done > total { // a ledger that grows meanwhile
		b.bar.ChangeMax64(done)
	}
	_ = b.bar.Set64(done)
}

// Bytes is the step that counts bytes. The bar shows them in their larger units.
const Bytes = "bytes"

func (b *Bar) begin(step string, total int64) *progressbar.ProgressBar {
	options := []progressbar.Option{
		progressbar.OptionSetWriter(b.to),
		progressbar.OptionSetDescription(step),
		progressbar.OptionSetTheme(progressbar.ThemeASCII),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(redraw),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionShowCount(),
	}
	if step == Bytes {
		options = append(options, progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true))
	} else {
		options = append(options, progressbar.OptionShowIts())
	}
	if total <= 0 {
		total = -1
		// Without an interval the spinner turns as the work goes on. With one, a goroutine would draw it after Clear.
		options = append(options, progressbar.OptionSpinnerType(9), progressbar.OptionSetSpinnerChangeInterval(0),
			progressbar.OptionShowTotalBytes(false))
	}
	return progressbar.NewOptions64(total, options...)
}

// Clear removes the bar from the terminal.
func (b *Bar) Clear() {
	if b != nil && b.bar != nil {
		_ = b.bar.Clear()
		_ = b.bar.Exit()
		b.bar = nil
	}
}

// Writer returns a writer that passes everything on to w, and shows how many bytes have passed.
func (b *Bar) Writer(w io.Writer) io.Writer {
	if b == nil {
		return w
	}
	return &counted{to: w, bar: b}
}

type counted struct {
	to   io.Writer
	bar  *Bar
	done int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.done += int64(n)
	c.bar.Show(Bytes, c.done, 0)
	return n, err
}
