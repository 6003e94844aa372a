package zone

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
)

// Seed is what the secrets of one turn are derived from. The shell draws it from the system's random source; it is an input like the
// time, so that a turn that is repeated makes the same secrets.
type Seed [32]byte

// secrets makes values that nobody can guess who does not know the seed.
type secrets struct {
	seed Seed
	made uint64
}

// bytes gives 32 of them, which the turn gives nowhere else.
func (s *secrets) bytes() []byte {
	s.made++
	mac := hmac.New(sha256.New, s.seed[:])
	_ = binary.Write(mac, binary.BigEndian, s.made) // a hash takes everything
	return mac.Sum(nil)
}

// text is a secret in 32 letters and digits.
func (s *secrets) text() string { return base32.StdEncoding.EncodeToString(s.bytes()[:20]) }
