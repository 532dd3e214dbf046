package caddymodule

import "runtime/debug"

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
