package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/notes"
)

// checksumAnnotation is the CRC-32C of the index without this annotation.
const checksumAnnotation = "mammoth.crc32c"

// sealIndex writes out the index with its checksum.
func sealIndex(index ocispec.Index) ([]byte, error) {
	sum, err := indexChecksum(index)
	if err != nil {
		return nil, err
	}
	index.Annotations = map[string]string{checksumAnnotation: sum}
	return json.MarshalIndent(index, "", " ")
}

func indexChecksum(index ocispec.Index) (string, error) {
	index.Annotations = nil
	content, err := json.Marshal(index)
	return fmt.Sprintf("%08x", crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))), err
}

// readIndex reads index.json, or its copy if that is damaged or gone. Twice reports whether both say the same. A store without
// blobs needs neither. A store with blobs is never taken for an empty one, since what no name leads to is deleted.
func readIndex(dir string) (found ocispec.Index, twice bool, err error) {
	index, first, err := readOne(dir, ocispec.ImageIndexFile)
	if err != nil {
		return index, false, err
	}
	second, copied, err := readOne(dir, notes.Copy(ocispec.ImageIndexFile))
	switch {
	case err != nil:
		return second, false, err
	case first == intact:
		return index, copied == intact && index.Annotations[checksumAnnotation] == second.Annotations[checksumAnnotation], nil
	case copied == intact:
		return second, false, nil
	case first == gone && copied == gone:
		blobs, err := os.ReadDir(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256"))
		if err != nil || len(blobs) == 0 {
			return ocispec.Index{}, false, err
		}
	}
	return ocispec.Index{}, false, fmt.Errorf("%s and its copy beside it are damaged or gone; put the folder back from a backup, or move it away and push the images again", ocispec.ImageIndexFile)
}

type condition byte

const (
	intact condition = iota
	gone
	changed
)

// readOne reads one of the two files.
func readOne(dir, name string) (ocispec.Index, condition, error) {
	var index ocispec.Index
	content, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return index, gone, nil
	}
	if err != nil {
		return index, changed, err
	}
	if json.Unmarshal(content, &index) != nil {
		return index, changed, nil
	}
	if sum, err := indexChecksum(index); err != nil || sum != index.Annotations[checksumAnnotation] {
		return index, changed, nil
	}
	return index, intact, nil
}
