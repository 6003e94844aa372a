package images

import (
	"archive/tar"
	"encoding/binary"
	"strings"
)

const (
	xattrRecord = "SCHILY.xattr."
	// maxXattrName and maxXattr are the kernel's limits for the name and the value of an extended attribute.
	maxXattrName = 255
	maxXattr     = 64 << 10
)

// attributes refuses extended attributes that the kernel does not accept and engines do not ignore.
func (w *walk) attributes(header *tar.Header, what kind) error {
	for record, value := range header.PAXRecords {
		name, ok := strings.CutPrefix(record, xattrRecord)
		if !ok {
			continue
		}
		if why := badXattr(name, value, what); why != "" {
			return invalid("%s has %q with the extended attribute %s, %s; build the layer without it", w.what, header.Name, shortened(name), why)
		}
	}
	return nil
}

func badXattr(name, value string, what kind) string {
	space, rest, _ := strings.Cut(name, ".")
	switch {
	case name == "" || len(name) > maxXattrName:
		return "whose name must have 1 to 255 bytes"
	case len(value) > maxXattr:
		return "which is longer than 64KiB"
	case rest == "" && strings.HasSuffix(name, ".") && (space == "security" || space == "trusted" || space == "user" && (what == regular || what == folder)):
		return "which has no name of its own"
	case value == "":
		return ""
	case name == "security.capability" && !isCapability(value):
		return "which is not of a form that the kernel knows"
	case name == "system.posix_acl_access" || name == "system.posix_acl_default":
		return badACL(value, what, name == "system.posix_acl_default")
	}
	return ""
}

// isCapability reports whether a value is a file capability of version 2 or 3.
func isCapability(value string) bool {
	if len(value) < 4 {
		return false
	}
	form := binary.LittleEndian.Uint32([]byte(value)) >> 24
	return len(value) == 20 && form == 2 || len(value) == 24 && form == 3
}

// badACL checks an access control list as the kernel does: the owner, users by id, the group, groups, the mask and others in
// this order, with a mask if users or groups are listed.
func badACL(value string, what kind, byDefault bool) string {
	const malformed = "which is not an access control list that the kernel knows"
	entries := []byte(value)
	if len(entries) < 4 {
		return malformed
	}
	if binary.LittleEndian.Uint32(entries) != 2 {
		return "" // Engines ignore the kernel's error for other versions.
	}
	entries = entries[4:]
	if len(entries)%8 != 0 {
		return malformed
	}
	const owner, user, group, groups, mask, others = 1, 2, 4, 8, 16, 32
	last, seen := uint16(0), uint16(0)
	ordered := true
	for rest := entries; len(rest) > 0; rest = rest[8:] {
		tag, may := binary.LittleEndian.Uint16(rest), binary.LittleEndian.Uint16(rest[2:])
		switch tag {
		case owner, group, mask, others:
		case user, groups:
			if binary.LittleEndian.Uint32(rest[4:]) == 1<<32-1 {
				return malformed
			}
		default:
			return malformed
		}
		ordered = ordered && may <= 7 && (tag > last || tag == last && (tag == user || tag == groups))
		last, seen = tag, seen|tag
	}
	switch {
	case len(entries) == 0 || what == symlink:
		return ""
	case byDefault && what != folder:
		return "which only folders may have"
	case !ordered || seen&(owner|group|others) != owner|group|others || seen&(user|groups) != 0 && seen&mask == 0:
		return malformed
	}
	return ""
}
