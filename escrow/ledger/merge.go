package ledger

import "bytes"

// Cursor walks changes in the direction of a scan, within its range.
type Cursor interface {
	// Peek returns the change that the cursor stands at, a nil value for a deletion; at the end it is not ok.
	Peek() (key, value []byte, ok bool)
	// Next goes on to the next change.
	Next()
}

// Merge is the Scan of changes over what they change. The cursor has left a change before fn is called with it.
func Merge(changes Cursor, base Reader, r Range, fn func(key, value []byte) (more bool, err error)) error {
	more := true
	// emitUpTo calls fn for the changes that come before key, and reports whether a change of key itself stands in for it.
	emitUpTo := func(key []byte) (replaced bool, err error) {
		for more {
			changed, value, ok := changes.Peek()
			if !ok {
				return false, nil
			}
			order := -1
			if key != nil {
				if order = bytes.Compare(changed, key); r.Reverse {
					order = -order
				}
			}
			if order > 0 {
				return false, nil
			}
			changes.Next()
			if value != nil {
				if more, err = fn(changed, value); err != nil {
					return true, err
				}
			}
			if order == 0 {
				return true, nil
			}
		}
		return true, nil
	}
	err := base.Scan(r, func(key, value []byte) (bool, error) {
		replaced, err := emitUpTo(key)
		if err != nil || replaced {
			return more && err == nil, err
		}
		more, err = fn(key, value)
		return more, err
	})
	if err != nil || !more {
		return err
	}
	_, err = emitUpTo(nil)
	return err
}
