package commandtest

import (
	"net"
	"strconv"
	"sync"
	"testing"
)

// ports is the block of ports for the servers of this process. No other test process has the same block, because a listener on its first port is
// open as long as the process runs. This is necessary since Caddy listens with SO_REUSEPORT: two processes with the same port would share its
// connections without an error. The blocks are below the ports that the system uses for outgoing connections.
var ports struct {
	sync.Mutex
	guard net.Listener
	first int
	given int
}

const portsInBlock = 500

// FreePort returns a port for a server to listen on, which no other test process gets. The ports of the block are used in turn.
func FreePort(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for first := 12_000; ports.guard == nil; first += portsInBlock {
		if first >= 32_000 {
			t.Fatal("no free block of ports")
		}
		if l, err := net.Listen("tcp", ":"+strconv.Itoa(first)); err == nil {
			ports.guard, ports.first = l, first
		}
	}
	for range portsInBlock {
		ports.given = ports.given%(portsInBlock-1) + 1
		port := strconv.Itoa(ports.first + ports.given)
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// FreeAddress is [FreePort] with the address of this machine, as in 127.0.0.1:12001.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return "127.0.0.1:" + FreePort(t)
}
