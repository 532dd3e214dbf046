package caddymodule

import (
	"runtime/debug"

	"github.com/tallygate/tallygate/escrow/api"
)

const modulePath = "github.com/tallygate/tallygate"

// Version returns the version of Tallygate in this program, such as "v1.2.0", or "(devel)" for a build from a work tree without one.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	if info.Main.Path == modulePath && info.Main.Version != "" {
		return info.Main.Version
	}
	for _, dep := range info.Deps {
		if dep.Path == modulePath {
			return dep.Version
		}
	}
	return "(devel)"
}

// judgeAgent is the User-Agent of questions to judges.
func judgeAgent() string { return api.UserAgent("Tallygate-Judge", Version()) }
