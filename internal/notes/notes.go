// Package notes stores small values that a daemon needs at its next start: as JSON with a checksum, in a file with a copy
// beside it. Records with many commits a second are kept by internal/records.
//
// A note is one file, replaced as a whole. The package owns no folder: its callers name the file.
package notes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
)

// ErrDamaged is the error if neither the file nor its copy is intact.
var ErrDamaged = errors.New("it was damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed is a stored value: the checksum is of its JSON without spaces.
type sealed struct {
	Notes    json.RawMessage `json:"notes"`
	Checksum string          `json:"crc32c"`
}

// Seal returns the JSON of a value with its checksum.
func Seal(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("note: %w", err)
	}
	out, err := json.MarshalIndent(sealed{Notes: text, Checksum: checksum(text)}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("note: %w", err)
	}
	return append(out, '\n'), nil
}

// Unseal reads into value what Seal returned. Its error is ErrDamaged if that was changed; value is unchanged then.
func Unseal(data []byte, value any) error {
	var from sealed
	var text bytes.Buffer
	if json.Unmarshal(data, &from) != nil || json.Compact(&text, from.Notes) != nil || checksum(text.Bytes()) != from.Checksum {
		return ErrDamaged
	}
	return json.Unmarshal(text.Bytes(), value)
}

func checksum(text []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(text, castagnoli)) }

// Copy is the path of a file's copy.
func Copy(path string) string { return path + ".copy" }

// Exist reports whether something was stored: one of the two files is enough.
func Exist(path string) bool {
	for _, file := range []string{path, Copy(path)} {
		if _, err := os.Stat(file); err == nil {
			return true
		}
	}
	return false
}

// Read reads into value what Write has written. One of the two files is enough; the next Write repairs the other. Its error
// is fs.ErrNotExist if both are missing, and ErrDamaged if one is damaged and the other is damaged or missing.
func Read(path string, value any) error {
	err := read(path, value)
	if err == nil {
		return nil
	}
	of := read(Copy(path), value)
	if of == nil || errors.Is(err, fs.ErrNotExist) {
		return of
	}
	return err
}

func read(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return Unseal(data, value)
}

// Write stores a value. After an interruption Read returns the old or the new value.
func Write(path string, value any) error {
	data, err := Seal(value)
	if err != nil {
		return err
	}
	for _, file := range []string{path, Copy(path)} {
		// An unchanged file needs no space on a disk that may be full.
		if before, err := os.ReadFile(file); err == nil && bytes.Equal(before, data) {
			continue
		}
		if err := replace(file, data); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a file atomically and durably.
func replace(path string, data []byte) error {
	unfinished := path + ".new"
	file, err := os.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(unfinished)
		return err
	}
	return os.Rename(unfinished, path)
}
