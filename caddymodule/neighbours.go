package caddymodule

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Caddy listens in a way that lets several processes have the same port. The system then divides the connections between them. With two
// Tallygates, each agent would be known to one ledger and not to the other, from one request to the next. So a server asks at its own
// addresses, before it serves, whether another ledger is there.

// whoPath is the path below which the API is. It tells which ledger is here.
const whoPath = "/api/v1"

// process is a name of this process. During a reload two configurations of one process serve, perhaps with two ledgers.
var process = rand.Text()

// who is the answer at whoPath.
type who struct {
	Name    string `json:"name"`
	Ledger  string `json:"ledger,omitempty"` // missing until the ledger is open
	Process string `json:"process"`
}

// tellWho tells which ledger is here. It does not wait for the ledger to be open.
func (a *App) tellWho(w http.ResponseWriter) {
	id, _ := a.ledgerID.Load().(string)
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(who{Name: "tallygate", Ledger: id, Process: process})
}

const (
	askTimes   = 8 // connections may come to this process
	askTimeout = time.Second
)

// refuseNeighbours returns an error if another process serves another ledger at an address of this configuration.
func (a *App) refuseNeighbours() error {
	_, id, err := a.book.ReceiptKey(context.Background())
	if err != nil {
		a.logger.Warn("the ledger has no id, so another server at the same port can't be found out")
		return nil
	}
	a.ledgerID.Store(id)
	for server := range a.guards {
		for _, host := range a.servedHosts(server) {
			for _, listen := range server.Listen {
				address, err := caddy.ParseNetworkAddress(listen)
				if err != nil || address.Network != "tcp" || address.StartPort == 0 || address.StartPort != address.EndPort {
					continue
				}
				if other := askWho(server, address, host+a.prefix, id); other != "" {
					return fmt.Errorf("another Tallygate with another ledger (%s) serves %s: the two would share its requests; stop the other server, or listen at another port", other, listen)
				}
			}
		}
	}
	return nil
}

// servedHosts returns the hosts at which a server has the API, one for each site. A site for all hosts is asked as localhost.
func (a *App) servedHosts(server *caddyhttp.Server) (hosts []string) {
	eachHandler(server, func(h caddyhttp.MiddlewareHandler, at location) {
		if _, serves := h.(*Handler); !serves {
			return
		}
		host := "localhost"
		for _, name := range at.hosts {
			if !strings.ContainsAny(name, "*{") {
				host = name
				break
			}
		}
		hosts = append(hosts, host)
	})
	return hosts
}

// askWho returns the id of another ledger at an address, or an empty text.
func askWho(server *caddyhttp.Server, address caddy.NetworkAddress, hostAndPrefix, own string) string {
	target := address.Host
	if ip := net.ParseIP(target); target == "" || ip != nil && ip.IsUnspecified() {
		target = "127.0.0.1"
	}
	port := strconv.Itoa(int(address.StartPort))
	host, prefix, _ := strings.Cut(hostAndPrefix, "/")
	scheme := "http"
	if len(server.TLSConnPolicies) > 0 {
		scheme = "https"
	}
	dialer := net.Dialer{Timeout: askTimeout}
	client := http.Client{Timeout: askTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: host}, //nolint:gosec // the answer is not trusted; at worst the start is refused
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, net.JoinHostPort(target, port))
		},
	}}
	url := scheme + "://" + net.JoinHostPort(host, port)
	if prefix != "" {
		url += "/" + prefix
	}
	for range askTimes {
		there, err := getWho(&client, url+whoPath)
		if err != nil {
			return ""
		}
		if there.Name == "tallygate" && there.Process != process && there.Ledger != "" && there.Ledger != own {
			return there.Ledger
		}
	}
	return ""
}

func getWho(client *http.Client, url string) (there who, err error) {
	response, err := client.Get(url)
	if err != nil {
		return there, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return there, errors.New(response.Status)
	}
	return there, json.NewDecoder(io.LimitReader(response.Body, 4<<10)).Decode(&there)
}
