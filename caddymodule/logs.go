package caddymodule

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// accessLogs returns the names of the loggers to which a server writes its access logs.
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

// showsKeys reports whether the logs of a logger show the header X-Api-Key. To find out, it passes a header to the encoders, without
// writing anything: an encoder that has no filter for the header reads its value.
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

// loggerName is a fake module. It makes Caddy look up the logs to which the logger of that name writes.
type loggerName string

func (l loggerName) CaddyModule() caddy.ModuleInfo { return caddy.ModuleInfo{ID: caddy.ModuleID(l)} }
