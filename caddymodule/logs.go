package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// accessLogs are the names of the loggers that a server writes its access logs by.
func accessLogs(config *caddyhttp.ServerLogConfig) []string {
	if config == nil {
		return nil
	}
	var names []string
	add := func(name string) {
		if name != "" {
			name = "." + name
		}
		if name = "http.log.access" + name; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if !config.SkipUnmappedHosts {
		add(config.DefaultLoggerName)
	}
	for _, ofHost := range config.LoggerNames {
		for _, name := range ofHost {
			add(name)
		}
	}
	slices.Sort(names)
	return names
}

// showsKeys reports whether what goes by a logger's name is written with its header X-Api-Key as it is. Nothing is written to find out: the
// encoders are given a header, and ask for its value unless a filter stands before it.
func (a *App) showsKeys(logger string) bool {
	asked := false
	header := zapcore.ArrayMarshalerFunc(func(zapcore.ArrayEncoder) error {
		asked = true
		return nil
	})
	object := func(name string, field zap.Field) zap.Field {
		return zap.Object(name, zapcore.ObjectMarshalerFunc(func(e zapcore.ObjectEncoder) error {
			field.AddTo(e)
			return nil
		}))
	}
	a.ctx.Logger(loggerName(logger)).Core().With([]zap.Field{object("request", object("headers", zap.Array("X-Api-Key", header)))})
	return asked
}

// loggerName has Caddy look up the logs that a name goes to, as if it were a module's.
type loggerName string

func (l loggerName) CaddyModule() caddy.ModuleInfo { return caddy.ModuleInfo{ID: caddy.ModuleID(l)} }
