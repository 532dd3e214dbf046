package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
)

var errInjected = errors.New("injected")

// failing makes one step fail or panic, each time until it is cleared.
type failing struct {
	step   atomic.Pointer[Step]
	panics bool
}

func (f *failing) hook(step Step) error {
	if want := f.step.Load(); want == nil || *want != step {
		return nil
	}
	if f.panics {
		panic(errInjected)
	}
	return errInjected
}

func (f *failing) set(step Step) { f.step.Store(&step) }

func (f *failing) clear() { f.step.Store(nil) }

func quietly(o ledger.Options) ledger.Options {
	o.Currency, o.Logger = "USDC", slog.New(slog.DiscardHandler)
	return o
}

func open(t *testing.T, path string, o Options) (*Store, *ledger.Ledger) {
	t.Helper()
	s, err := Open(path, o)
	must(t, err)
	l, err := ledger.New(s, quietly(ledger.Options{}))
	must(t, err)
	return s, l
}

// perform runs an operation that has no result.
func perform(l *ledger.Ledger, op func(*ledger.Tx) error) error {
	_, err := ledger.Do(context.Background(), l, func(tx *ledger.Tx) (struct{}, error) { return struct{}{}, op(tx) })
	return err
}

// once makes a deposit under an id, unless there was one under the same id before.
func once(l *ledger.Ledger, id string) error {
	return perform(l, func(tx *ledger.Tx) error {
		if made, err := tx.Get([]byte("d" + id)); err != nil || made != nil {
			return err
		}
		tx.Put([]byte("d"+id), []byte{})
		_, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: ledger.Wallet("alice"), Amount: 1, Kind: "deposit", Reference: id})
		return err
	})
}

// found reports whether the deposit under an id was committed.
func found(l *ledger.Ledger, id string) (there bool, err error) {
	err = l.View(func(r ledger.Reader) error {
		value, err := r.Get([]byte("d" + id))
		there = value != nil
		return err
	})
	return there, err
}

func mustVerify(t *testing.T, l *ledger.Ledger, transfers uint64) {
	t.Helper()
	report, err := l.Check(context.Background(), nil)
	must(t, err)
	if len(report.Wrong) > 0 || report.Transfers != transfers {
		t.Fatalf("%d transfers, want %d; wrong: %v", report.Transfers, transfers, report.Wrong)
	}
}

// TestEachStepFails makes each step of a commit and of Reopen fail, by an error and by a panic. Operations are refused until the store is
// reopened, and then it can be found out whether the failed operation took place.
func TestEachStepFails(t *testing.T) {
	t.Parallel()
	for _, panics := range []bool{false, true} {
		for _, c := range []struct {
			step    Step
			took    bool
			unknown bool
		}{{StepBegin, false, false}, {StepWrite, false, true}, {StepCommit, false, true}, {StepSync, true, true}} {
			t.Run(fmt.Sprintf("%s/panic=%t", c.step, panics), func(t *testing.T) {
				f := &failing{panics: panics}
				path := filepath.Join(t.TempDir(), "ledger.db")
				_, l := open(t, path, Options{Fault: f.hook})
				must(t, once(l, "before"))
				f.set(c.step)
				if err := once(l, "x"); errors.Is(err, ledger.ErrOutcomeUnknown) != c.unknown || !c.unknown && !errors.Is(err, ledger.ErrUnavailable) {
					t.Fatalf("the operation: %v", err)
				}
				if err := once(l, "later"); !errors.Is(err, ledger.ErrUnavailable) {
					t.Fatalf("an operation after it: %v", err)
				}
				for _, step := range []Step{StepCopy, StepFlush, StepRename} {
					f.set(step)
					if err := l.Reopen(); err == nil {
						t.Fatalf("reopened though %s failed", step)
					}
					if err := once(l, "later"); !errors.Is(err, ledger.ErrUnavailable) {
						t.Fatalf("an operation after %s failed: %v", step, err)
					}
				}
				f.clear()
				must(t, l.Reopen())
				if there, err := found(l, "x"); there != c.took || err != nil {
					t.Fatalf("it was found: %t, want %t, %v", there, c.took, err)
				}
				must(t, once(l, "x"))
				must(t, once(l, "later"))
				mustVerify(t, l, 3)
				must(t, l.Close())
				_, l = open(t, path, Options{})
				mustVerify(t, l, 3)
				must(t, l.Close())
				mustBeAlone(t, path)
			})
		}
	}
}

// mustBeAlone checks that no other files were left beside the ledger.
func mustBeAlone(t *testing.T, path string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("beside the ledger there are %v", files)
	}
}

// TestRestartAfterFailedSync: after a failed sync, the next process that opens the file also writes it again.
func TestRestartAfterFailedSync(t *testing.T) {
	t.Parallel()
	f := new(failing)
	path := filepath.Join(t.TempDir(), "ledger.db")
	_, l := open(t, path, Options{Fault: f.hook})
	f.set(StepSync)
	if err := once(l, "x"); !errors.Is(err, ledger.ErrOutcomeUnknown) {
		t.Fatal(err)
	}
	must(t, l.Close())
	before, err := os.Stat(path)
	must(t, err)
	_, err = Open(path, Options{Fault: func(s Step) error {
		if s == StepFlush {
			return errInjected
		}
		return nil
	}})
	if !errors.Is(err, errInjected) {
		t.Fatalf("opening where the copy can't be synced: %v", err)
	}
	_, l = open(t, path, Options{})
	after, err := os.Stat(path)
	must(t, err)
	if os.SameFile(before, after) {
		t.Error("the file was not renewed")
	}
	mustVerify(t, l, 1)
	must(t, l.Close())
	mustBeAlone(t, path)
}

// TestFullDisk: while the disk is full nothing is written. When there is room again, the store goes on with the same file.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	_, l := open(t, path, Options{})
	must(t, once(l, "before"))
	must(t, l.Close())
	s, l := open(t, path, Options{MaxSize: 17 << 20})
	size, err := s.Size()
	must(t, err)
	large := make([]byte, 1<<20)
	written := 0
	for err = nil; err == nil; written++ {
		err = perform(l, func(tx *ledger.Tx) error {
			tx.Put(fmt.Appendf(nil, "d%d", written), large)
			return nil
		})
	}
	if !errors.Is(err, ledger.ErrOutcomeUnknown) || written < 5 {
		t.Fatalf("after %d MiB on a disk with room for 17: %v", written, err)
	}
	if err := once(l, "x"); !errors.Is(err, ledger.ErrUnavailable) {
		t.Fatalf("an operation on a full disk: %v", err)
	}
	before, err := os.Stat(path)
	must(t, err)
	must(t, l.Reopen())
	after, err := os.Stat(path)
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("the file was renewed, for which there is no room")
	}
	must(t, perform(l, func(tx *ledger.Tx) error {
		tx.Delete([]byte("d0"))
		tx.Delete([]byte("d1"))
		return nil
	}))
	must(t, once(l, "x"))
	mustVerify(t, l, 2)
	if grown, err := s.Size(); err != nil || grown < size {
		t.Errorf("the file has %d bytes, it had %d, %v", grown, size, err)
	}
	must(t, l.Close())
}

// TestTornCommit interrupts a commit at each place where a power cut may: between its pages, within a page, in any order, before and after
// the page that makes it valid. The ledger is then as it was before the commit, or after it.
func TestTornCommit(t *testing.T) {
	t.Parallel()
	for _, layerSize := range []int{0, 1} {
		t.Run(fmt.Sprintf("layers of %d", layerSize), func(t *testing.T) { tearCommit(t, layerSize) })
	}
}

func tearCommit(t *testing.T, layerSize int) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, l := open(t, path, Options{NoSync: true, LayerSize: layerSize})
	for i := range 20 {
		must(t, once(l, fmt.Sprint("before", i)))
	}
	read := func() []byte {
		image, err := os.ReadFile(path)
		must(t, err)
		return image[:min(len(image), 1<<18)]
	}
	before, old := read(), contents(t, s)
	must(t, perform(l, func(tx *ledger.Tx) error {
		for i := range 8 { // several pages
			tx.Put(fmt.Appendf(nil, "dtorn%d", i), fmt.Appendf(nil, "%700d", i))
		}
		_, err := tx.Post(ledger.Transfer{Debit: ledger.World, Credit: ledger.Wallet("alice"), Amount: 1, Kind: "deposit", Reference: "torn"})
		return err
	}))
	after, young := read(), contents(t, s)
	must(t, l.Close())

	var data []int // the sectors of the data pages that the commit changed
	meta := -1
	for at := 0; at < len(after); at += 512 {
		switch {
		case bytes.Equal(before[at:at+512], after[at:at+512]):
		case at < 8192:
			meta = at
		default:
			data = append(data, at)
		}
	}
	if len(data) < 4 || meta < 0 {
		t.Fatalf("the commit changed sectors %v and %d", data, meta)
	}
	try := func(what string, image []byte, want map[string]string) {
		t.Helper()
		torn := filepath.Join(filepath.Dir(path), "torn.db")
		must(t, os.WriteFile(torn, image, 0o600))
		s, err := Open(torn, Options{NoSync: true, LayerSize: layerSize})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer s.Close()
		if err := faithful(s, want); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	image := bytes.Clone(before)
	for i, at := range data { // in their order
		copy(image[at:at+512], after[at:])
		try(fmt.Sprintf("%d of %d sectors", i+1, len(data)), image, old)
	}
	copy(image[meta:meta+512], after[meta:])
	try("all of it", image, young)
	for range 100 { // in any order, some not at all
		image := bytes.Clone(before)
		for _, i := range random.Perm(len(data))[:random.IntN(len(data))] {
			n := 1 + random.IntN(512)
			copy(image[data[i]:data[i]+n], after[data[i]:])
		}
		try("some sectors", image, old)
	}
}

func TestLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	_, l := open(t, path, Options{})
	for _, readOnly := range []bool{false, true} {
		_, err := Open(path, Options{Timeout: 1, ReadOnly: readOnly})
		if !errors.Is(err, ledger.ErrLocked) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "stop that process") {
			t.Errorf("opening a held file, read-only %t: %v", readOnly, err)
		}
	}
	must(t, once(l, "x"))
	must(t, l.Close())
	readers := make([]*Store, 2)
	for i := range readers {
		var err error
		readers[i], err = Open(path, Options{ReadOnly: true})
		must(t, err)
		defer readers[i].Close()
	}
	if _, err := Open(path, Options{Timeout: 1}); !errors.Is(err, ledger.ErrLocked) {
		t.Errorf("opening a file that is being read: %v", err)
	}
	reading, err := ledger.New(readers[0], ledger.Options{})
	must(t, err)
	if err := once(reading, "y"); !errors.Is(err, ledger.ErrReadOnly) {
		t.Errorf("an operation on a file that was opened for reading: %v", err)
	}
	mustVerify(t, reading, 1)
}

// TestModes: only the owner may read the file and its directory.
func TestModes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b", "ledger.db")
	_, l := open(t, path, Options{})
	must(t, l.Close())
	for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700 | fs.ModeDir, filepath.Dir(filepath.Dir(path)): 0o700 | fs.ModeDir} {
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %s, want %s", name, info.Mode(), want)
		}
	}
}

// TestReopenUnderLoad: callers go on through failures and reopenings. Each operation that succeeded is there, once, and nothing is lost.
func TestReopenUnderLoad(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	fault := func(step Step) error {
		if n := calls.Add(1); (step == StepSync || step == StepCommit) && n%97 < 2 {
			return errInjected
		}
		return nil
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	_, l := open(t, path, Options{Fault: fault})
	var all sync.WaitGroup
	var reopened atomic.Int64
	const callers, each = 8, 60
	for caller := range callers {
		all.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%d.%d", caller, i)
				for err := once(l, id); err != nil; err = once(l, id) {
					if !errors.Is(err, ledger.ErrOutcomeUnknown) && !errors.Is(err, ledger.ErrUnavailable) {
						t.Errorf("%s: %v", id, err)
						return
					}
					if l.Reopen() == nil {
						reopened.Add(1)
					}
				}
				if there, err := found(l, id); !there || err != nil {
					t.Errorf("%s was answered, and is not there: %v", id, err)
				}
			}
		})
	}
	all.Wait()
	if reopened.Load() == 0 {
		t.Error("nothing failed")
	}
	mustVerify(t, l, callers*each)
	must(t, l.Close())
	_, l = open(t, path, Options{})
	mustVerify(t, l, callers*each)
	must(t, l.Close())
}
