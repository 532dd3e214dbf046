//go:build unix

package bolt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tallygate/tallygate/escrow/ledger"
	"github.com/tallygate/tallygate/internal/rounds"
)

// childFile is an environment variable. If it is set, the test binary writes to the ledger that it names, until it is told to stop or killed.
const childFile = "TALLYGATE_TEST_LEDGER"

func TestMain(m *testing.M) {
	if path := os.Getenv(childFile); path != "" {
		if err := child(path); err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
		return
	}
	rounds.Checks(15, 100)
	os.Exit(m.Run())
}

// child makes operations, and prints the result of each: "ok ID", "unknown ID found", "unknown ID absent", "refused ID". After a failed commit it
// reopens the ledger, repeats the operations that are absent, and goes on.
func child(path string) error {
	signal.Ignore(syscall.SIGXFSZ) // so that a file that may not grow is an error
	// Faults are injected at the n-th call of a thread. So the writer must stay on one thread, on which nothing else has written before.
	runtime.LockOSThread()
	s, err := Open(path, Options{LayerSize: 64 << 10}) // so that layers are folded while it is killed
	if err != nil {
		return err
	}
	locked := make(chan error)
	s.Submit(ledger.Op{Run: func(ledger.Writer) error { runtime.LockOSThread(); return nil }, Done: func(err error) { locked <- err }})
	if err := <-locked; err != nil {
		return err
	}
	l, err := ledger.New(s, quietly(ledger.Options{}))
	if err != nil {
		return err
	}
	callers, operations := 1, 20
	if os.Getenv("TALLYGATE_TEST_CALLERS") != "" {
		callers, operations = 8, 1<<30
	}
	var all sync.WaitGroup
	pid := os.Getpid()
	for caller := range callers {
		all.Go(func() {
			for i := range operations {
				fmt.Println(operate(l, fmt.Sprintf("%d.%d.%d", pid, caller, i)))
			}
		})
	}
	all.Wait()
	return l.Close()
}

func operate(l *ledger.Ledger, id string) string {
	err := once(l, id)
	if err == nil {
		return "ok " + id
	}
	if !errors.Is(err, ledger.ErrOutcomeUnknown) {
		return fmt.Sprintf("refused %s %v", id, err)
	}
	cause := strings.ReplaceAll(err.Error(), "\n", " ")
	if err := l.Reopen(); err != nil {
		return fmt.Sprintf("stopped %s %v", id, err)
	}
	there, err := found(l, id)
	if err != nil {
		return fmt.Sprintf("failed %s %v", id, err)
	}
	if there {
		return "unknown " + id + " found: " + cause
	}
	if err := once(l, id); err != nil {
		return fmt.Sprintf("failed %s %v", id, err)
	}
	return "unknown " + id + " absent: " + cause
}

// command returns the child as a command, run by others such as strace if any are given.
func command(t *testing.T, path string, by ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	arguments := append(by, self)
	c := exec.Command(arguments[0], arguments[1:]...)
	c.Env = append(os.Environ(), childFile+"="+path)
	c.Stderr = os.Stderr
	return c
}

// acknowledged reads what a child prints until it ends.
func acknowledged(t *testing.T, out io.Reader, each func(ids int)) (ids, unknown []string) {
	t.Helper()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) >= 2 && words[0] == "ok":
			ids = append(ids, words[1])
		case len(words) >= 3 && words[0] == "unknown":
			ids = append(ids, words[1])
			unknown = append(unknown, lines.Text())
		default:
			t.Errorf("the child says %q", lines.Text())
		}
		if each != nil {
			each(len(ids))
		}
	}
	return ids, unknown
}

// mustHave checks that the books are right, and contain each id exactly once.
func mustHave(t *testing.T, path string, ids []string) {
	t.Helper()
	_, l := open(t, path, Options{})
	defer l.Close()
	seen := map[string]int{}
	for after := uint64(0); ; {
		page, err := l.Transfers(after, 1000)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, transfer := range page {
			seen[transfer.Reference]++
		}
		after = page[len(page)-1].Seq
	}
	for _, id := range ids {
		if seen[id] != 1 {
			t.Errorf("operation %s was acknowledged, and is in the books %d times", id, seen[id])
		}
	}
	stand, err := l.Stand()
	must(t, err)
	mustVerify(t, l, stand.Transfers)
}

// TestKilled kills a process that writes, again and again. What it has acknowledged is in the books, once, and the books are right.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	var ids []string
	for range rounds {
		c := command(t, path)
		c.Env = append(c.Env, "TALLYGATE_TEST_CALLERS=8")
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		after := 1 + rand.IntN(400)
		killed := false
		some, _ := acknowledged(t, out, func(n int) {
			if n >= after && !killed {
				killed = true
				must(t, c.Process.Kill())
			}
		})
		if err := c.Wait(); err == nil || !killed {
			t.Fatalf("the child was not killed: %v", err)
		}
		ids = append(ids, some...)
		mustHave(t, path, ids)
	}
	t.Logf("%d operations were acknowledged over %d kills", len(ids), rounds)
}

// TestRealFaults makes system calls of a commit fail, as a broken or full disk does. The outcome of the commit is unknown. The process goes on by
// itself, and at the end each operation is in the books once.
func TestRealFaults(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("SKIPPED: no strace here, with which system calls are made to fail; install it (apt-get install strace)")
	}
	for _, c := range []struct {
		name, inject string
		found        string
		renewed      bool
	}{
		{"first sync", "fdatasync:error=EIO:when=5", "absent", true},
		{"second sync", "fdatasync:error=EIO:when=6", "found", true},
		{"first write", "pwrite64:error=EIO:when=12", "absent", false},
		{"disk full", "pwrite64:error=ENOSPC:when=13", "absent", false},
		{"sync on a full disk", "fdatasync:error=ENOSPC:when=5", "absent", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			_, l := open(t, path, Options{})
			must(t, l.Close())
			before, err := os.Stat(path)
			must(t, err)
			out, err := command(t, path, strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,pwrite64", "-e", "inject="+c.inject).Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			ids, unknown := acknowledged(t, strings.NewReader(string(out)), nil)
			if len(ids) != 20 || len(unknown) != 1 || !strings.Contains(unknown[0], " "+c.found+": ") {
				t.Fatalf("%d operations, unknown: %q; want one that is then %s", len(ids), unknown, c.found)
			}
			after, err := os.Stat(path)
			must(t, err)
			if os.SameFile(before, after) == c.renewed {
				t.Errorf("the file was renewed: %t, want %t", !c.renewed, c.renewed)
			}
			mustHave(t, path, ids)
			mustBeAlone(t, path)
		})
	}
}

// TestFileLimit: a limit of the file's size has the same effect as a full disk.
func TestFileLimit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	_, l := open(t, path, Options{NoSync: true})
	must(t, once(l, "before"))
	must(t, l.Close())
	c := command(t, path, "sh", "-c", `ulimit -f 32; exec "$0"`)
	out, err := c.Output()
	if !strings.Contains(string(out), "file too large") {
		t.Errorf("a process that may not write says %v: %s", err, out)
	}
	mustHave(t, path, []string{"before"})
}

// TestLittleAddressSpace: the file can be opened even if the address space is limited.
func TestLittleAddressSpace(t *testing.T) {
	t.Parallel()
	if racing {
		t.Skip("the race detector itself needs more address space than this")
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	out, err := command(t, path, "sh", "-c", `ulimit -v 1400000; exec "$0"`).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ids, unknown := acknowledged(t, strings.NewReader(string(out)), nil)
	if len(ids) != 20 || len(unknown) != 0 {
		t.Errorf("%d operations, unknown: %q", len(ids), unknown)
	}
	mustHave(t, path, ids)
}
