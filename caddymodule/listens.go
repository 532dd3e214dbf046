package caddymodule

import (
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/caddyserver/caddy/v2"
)

// listens reports whether this Caddy itself listens at an address of this machine, with a site or with the admin endpoint. Webhooks must
// not be sent there, since the admin endpoint needs no key: POST /stop stops the server, and POST /load replaces its configuration. Caddy
// registers listeners by the host name in the configuration, so all names are tried that the address can have there.
func listens(at netip.AddrPort) bool {
	address := at.Addr().Unmap().WithZone("")
	hosts := []string{address.String(), "", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"}
	if name, err := os.Hostname(); err == nil {
		hosts = append(hosts, name)
	}
	port := strconv.Itoa(int(at.Port()))
	for _, host := range hosts {
		for _, network := range []string{"tcp", "tcp4", "tcp6"} {
			if caddy.ListenerUsage(network, net.JoinHostPort(host, port)) > 0 {
				return true
			}
		}
	}
	return false
}
