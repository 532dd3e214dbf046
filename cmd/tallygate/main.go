// Command tallygate is Caddy with Tallygate's modules. All of Caddy's commands work. `tallygate run` starts a server with the Caddyfile in the
// current folder; in this repository that is the demo shop.
package main

import (
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/tallygate/tallygate/caddymodule"
	_ "github.com/tallygate/tallygate/caddymodule/mpp"
	_ "github.com/tallygate/tallygate/caddymodule/postgres"
	_ "github.com/tallygate/tallygate/caddymodule/stripe"
	_ "github.com/tallygate/tallygate/caddymodule/x402"
	_ "github.com/tallygate/tallygate/cmd/tallygate/demo"
)

func main() {
	caddy.CustomBinaryName = "tallygate" // in the help
	caddy.CustomVersion = "tallygate " + caddymodule.Version()
	caddycmd.Main()
}
