// Command tallygate is Caddy with Tallygate's modules in it: all of Caddy's commands work, and `tallygate run` opens the
// shop of the Caddyfile in the current folder.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/tallygate/tallygate/caddymodule"
	_ "github.com/tallygate/tallygate/caddymodule/postgres"
	_ "github.com/tallygate/tallygate/cmd/tallygate/demo"
)

func main() {
	caddycmd.Main()
}
