package records

import (
	"encoding/binary"
	"hash/crc32"
)

// sectorSize is what a disk writes atomically.
const sectorSize = 512

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sector is a header of 512 bytes: the kind of file, the store, some numbers, and a checksum in the last four bytes.
type sector struct {
	magic   string
	store   ID
	numbers [6]uint64
}

func (s sector) encode() []byte {
	raw := make([]byte, sectorSize)
	copy(raw, s.magic)
	copy(raw[8:], s.store[:])
	for i, number := range s.numbers {
		binary.BigEndian.PutUint64(raw[24+8*i:], number)
	}
	binary.BigEndian.PutUint32(raw[sectorSize-4:], crc32.Checksum(raw[:sectorSize-4], castagnoli))
	return raw
}

// decodeSector decodes a header of that kind; ok is false if it is damaged.
func decodeSector(raw []byte, magic string) (s sector, ok bool) {
	if len(raw) != sectorSize || string(raw[:8]) != magic ||
		crc32.Checksum(raw[:sectorSize-4], castagnoli) != binary.BigEndian.Uint32(raw[sectorSize-4:]) {
		return sector{}, false
	}
	s.magic = magic
	copy(s.store[:], raw[8:])
	for i := range s.numbers {
		s.numbers[i] = binary.BigEndian.Uint64(raw[24+8*i:])
	}
	return s, true
}
