//go:build race

package caddymodule_test

func init() { raceDetector = true }
