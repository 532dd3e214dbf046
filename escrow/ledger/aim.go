package ledger

// aim is how many operations a group waits for, see [GroupCommit.gather]. It follows what arrives: it grows while operations arrive in time, and
// shrinks when they do not.
type aim struct {
	size  int  // so many operations make a group large enough
	most  int  // the largest size
	tried bool // size is larger than any group was lately, to see whether so many arrive
	rest  int  // so many groups do without a try
	pause int  // rest after the next try in vain
}

// mostPause is the largest number of groups between two tries that are in vain, so that a caller who is alone hardly ever waits.
const mostPause = 64

// met notes a group that did not wait in vain.
func (a *aim) met(operations int) {
	if a.tried {
		a.pause = 0
	}
	a.size = max(a.size, operations)
	if a.tried = a.rest == 0; a.tried {
		a.size = min(a.size+max(1, a.size/8), a.most)
	} else {
		a.rest--
	}
}

// missed notes a group that waited as long as it may. Of its operations, late ones came while it waited. If none did, nobody else is there.
func (a *aim) missed(operations, late int) {
	if a.tried || late == 0 {
		a.pause = min(max(1, 2*a.pause), mostPause)
		a.rest = a.pause
	}
	if late > 0 {
		operations = max(operations, a.size-a.size/8)
	}
	a.size, a.tried = max(1, operations), false
}
