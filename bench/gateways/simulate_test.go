package main

import (
	"math"
	"testing"
	"time"
)

// TestAsMeasured: the simulation repeats what was measured, within a quarter.
func TestAsMeasured(t *testing.T) {
	for _, p := range measured {
		if o := simulate(p.setup(), time.Second); math.Abs(o.PerSecond/p.perSecond-1) > 0.25 {
			t.Errorf("%d x %d callers: %.0f/s, measured %.0f/s", p.gateways, p.callers, o.PerSecond, p.perSecond)
		}
	}
}

// TestOneCaller: a caller that is alone waits for one run, two round trips and the disk.
func TestOneCaller(t *testing.T) {
	s := point{gateways: 1, callers: 1}.setup()
	o := simulate(s, time.Second)
	if want := s.Run + s.Send + s.Write + 2*s.Ask + 2*s.Trip + s.Flush; o.P50 != want || o.Group != 1 {
		t.Errorf("it waits %s, in groups of %.1f; want %s", o.P50, o.Group, want)
	}
}

// TestTheLockIsTheWall: beyond some number of gateways more of them do not help, since one of them at a time has the lock.
func TestTheLockIsTheWall(t *testing.T) {
	few, many := simulate(apart(8, 512), time.Second), simulate(apart(16, 512), time.Second)
	if many.PerSecond > 1.2*few.PerSecond || many.Locked < 0.95 {
		t.Errorf("8 gateways make %.0f/s, 16 make %.0f/s, and the lock is held for %.0f%% of the time", few.PerSecond, many.PerSecond, 100*many.Locked)
	}
}
