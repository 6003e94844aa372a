package records

import (
	"bytes"
	"testing"
	"time"
)

// frames is the area of a segment with some commits.
func frames(salt uint64, payloads ...string) []byte {
	var area []byte
	for i, payload := range payloads {
		s := segment{salt: salt}
		raw := append(make([]byte, frameHead), payload...)
		area = append(area, s.seal(raw, uint64(i+5), time.UnixMilli(1))...)
	}
	return append(area, make([]byte, 100)...)
}

// Whatever stands in a journal: what is read of it is what was written, one after the other, and nothing is read twice.
func FuzzReadFrames(f *testing.F) {
	const salt = 0xfedcba9876543210
	f.Add(frames(salt, "one", "two", ""))
	f.Add(frames(salt)[:50])
	torn := frames(salt, "one", "two", "three")
	torn[frameHead+4] ^= 1
	f.Add(torn)
	f.Fuzz(func(t *testing.T, area []byte) {
		c := readFrames(area, salt)
		size := 0
		for i, frame := range c.frames {
			if i > 0 && frame.number != c.frames[i-1].number+1 {
				t.Errorf("%d follows %d", frame.number, c.frames[i-1].number)
			}
			size += frameHead + len(frame.payload)
		}
		if size != c.end || c.end > len(area) {
			t.Errorf("the frames have %d bytes and end at %d of %d", size, c.end, len(area))
		}
		if len(c.orphans) > 0 && !c.hasTrailing {
			t.Error("there is something behind the end, and there is not")
		}
		// What follows a whole journal changes nothing of it.
		again := readFrames(append(bytes.Clone(area[:c.end]), make([]byte, 64)...), salt)
		if len(again.frames) != len(c.frames) || again.hasTrailing {
			t.Errorf("%d frames were read again as %d", len(c.frames), len(again.frames))
		}
	})
}

func FuzzDecodeChanges(f *testing.F) {
	f.Add(encodeChanges(nil, []Change{{"a", []byte("v")}, {"b", nil}, {"", []byte{}}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		changes, err := decodeChanges(raw)
		if err != nil {
			return
		}
		again, err := decodeChanges(encodeChanges(nil, changes))
		if err != nil || len(again) != len(changes) {
			t.Errorf("%v was read back as %v, %v", changes, again, err)
		}
	})
}
