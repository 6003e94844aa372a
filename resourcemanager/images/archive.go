package images

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/resource"
)

// maxName is the longest name of an entry, in bytes.
const maxName = 1024

// archive is an unpacked image archive: the content of its files by digest, in a directory of its own.
type archive struct {
	limits Limits
	// jsonRead is how many bytes of manifests and configs were read.
	jsonRead int64
	// reserve receives what is about to be written, and fails if there is no space for it.
	reserve io.Writer
	// files and links by name.
	files map[string]part
	links map[string]string
}

// part is the content of one file on the store's disk.
type part struct {
	digest digest.Digest
	size   int64
	path   string
}

// unpack reads an archive, a tar that may be gzip-compressed, and writes the content of its files to dir. No name on the
// store's disk comes from the archive. Space is reserved before anything is written. It fails with
// errdefs.ErrInvalidArgument for what is not an archive or has names that lead out of it, with errdefs.ErrResourceExhausted
// for an archive that is too large, and ends with ctx.
func unpack(ctx context.Context, content io.Reader, dir string, limits Limits, room io.Writer) (*archive, error) {
	a := &archive{limits: limits, reserve: room, files: map[string]part{}, links: map[string]string{}}
	expanded, err := limits.expand(ctx, "the archive", content)
	if errors.Is(err, io.EOF) {
		return nil, invalid("the archive is empty")
	}
	if err != nil {
		return nil, err
	}
	if err := a.readEntries(expanded, dir); errors.Is(err, errExpands) {
		return nil, tooLarge("the archive", limits.ExpandedBytes)
	} else if err != nil {
		return nil, err
	}
	return a, nil
}

// readEntries reads every entry of the archive.
func (a *archive) readEntries(expanded *guard, dir string) error {
	reader := tar.NewReader(expanded)
	for entries := 0; ; entries++ {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if entries == 0 && (errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) && !expanded.compressed) {
			// Without one complete header it is no tar. An archive that ends later is truncated.
			return invalid("this is not an image archive: it is neither a tar nor a gzip-compressed tar")
		}
		if err != nil {
			return damaged("the archive", err)
		}
		if entries == a.limits.Entries {
			return fmt.Errorf("the archive has more than %d entries: %w", a.limits.Entries, errdefs.ErrResourceExhausted)
		}
		if err := a.add(header, reader, filepath.Join(dir, strconv.Itoa(entries))); err != nil {
			return err
		}
	}
	// The rest after the tar's end is read because the checksum of a compressed stream is there.
	if _, err := io.Copy(io.Discard, expanded); err != nil {
		return damaged("the archive", err)
	}
	return nil
}

// add stores one entry.
func (a *archive) add(header *tar.Header, content io.Reader, onDisk string) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if len(header.Name) > maxName || len(header.Linkname) > maxName {
		return invalid("the archive has a name of more than %d bytes", maxName)
	}
	name, err := inside(header.Name)
	if err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
	default:
		return invalid("the archive has %q, which is neither a file, a folder nor a link", header.Name)
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		return a.addLink(name, path.Join(path.Dir(name), header.Linkname), header.Linkname)
	case tar.TypeLink:
		return a.addLink(name, path.Clean(header.Linkname), header.Linkname)
	}
	if isSparse(header) {
		return invalid("the archive's %q is a sparse file, which is not supported", header.Name)
	}
	stored, err := store(io.TeeReader(content, a.reserve), onDisk)
	if err != nil {
		return err
	}
	if hex, ok := strings.CutPrefix(name, ocispec.ImageBlobsDir+"/sha256/"); ok && hex != stored.digest.Encoded() {
		return invalid("the archive's %s has the digest %s, not the one in its name", name, stored.digest)
	}
	before, twice := a.files[name]
	if _, link := a.links[name]; link || twice && before.digest != stored.digest {
		return duplicateName(name)
	}
	if twice {
		// Builders that write several images repeat the layers that they share.
		return os.Remove(onDisk)
	}
	a.files[name] = stored
	return nil
}

func duplicateName(name string) error {
	return invalid("the archive has %q twice, with different content", name)
}

func (a *archive) addLink(name, target, written string) error {
	if path.IsAbs(written) || target == ".." || strings.HasPrefix(target, "../") {
		return invalid("the archive has the link %q to %q, which is outside of it", name, written)
	}
	before, twice := a.links[name]
	if _, file := a.files[name]; file || twice && before != target {
		return duplicateName(name)
	}
	a.links[name] = target
	return nil
}

// isSparse reports whether an entry may be larger than its content in the archive.
func isSparse(header *tar.Header) bool {
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return header.Typeflag == tar.TypeGNUSparse
}

// file finds the content of a name. It follows links.
func (a *archive) file(name string) (part, bool) {
	name = path.Clean(name)
	for range 8 {
		if found, ok := a.files[name]; ok {
			return found, true
		}
		target, ok := a.links[name]
		if !ok {
			break
		}
		name = target
	}
	return part{}, false
}

// json reads a small file completely.
func (a *archive) json(name string) ([]byte, bool, error) {
	found, ok := a.file(name)
	if !ok {
		return nil, false, nil
	}
	if found.size > maxJSON {
		return nil, true, invalid("the archive's %s is too long: %d bytes", name, found.size)
	}
	content, err := os.ReadFile(found.path)
	return content, true, err
}

// blob finds content by its digest, under any name.
func (a *archive) blob(sum digest.Digest) (part, bool) {
	if found, ok := a.file(blobName(sum)); ok && found.digest == sum {
		return found, true
	}
	for _, found := range a.files {
		if found.digest == sum {
			return found, true
		}
	}
	return part{}, false
}

func blobName(sum digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, sum.Algorithm().String(), sum.Encoded())
}

// inside returns an entry's clean name. It refuses names that lead out of the archive.
func inside(name string) (string, error) {
	clean := path.Clean(name)
	if path.IsAbs(name) {
		return "", invalid("the archive has the absolute name %q", name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == ".." {
			return "", invalid("the archive has the name %q, which leads out of it", name)
		}
	}
	return clean, nil
}

// store writes content to a new file.
func store(content io.Reader, onDisk string) (part, error) {
	file, err := os.OpenFile(onDisk, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return part{}, fmt.Errorf("unpack the archive: %w", diskError(err))
	}
	sum := sha256.New()
	size, err := copyContent(io.MultiWriter(file, sum), content)
	if err := errors.Join(err, file.Close()); err != nil {
		return part{}, err
	}
	return part{digest: digest.NewDigest(digest.SHA256, sum), size: size, path: onDisk}, nil
}

// copyContent distinguishes a damaged source from a full disk.
func copyContent(to io.Writer, from io.Reader) (int64, error) {
	size, err := io.Copy(to, from)
	if err == nil {
		return size, nil
	}
	if full := diskError(err); errors.Is(full, errdefs.ErrResourceExhausted) {
		return size, full
	}
	return size, damaged("the archive", err)
}

// damaged is the error for content that could not be read to its end.
func damaged(what string, err error) error {
	switch {
	case errors.Is(err, errdefs.ErrResourceExhausted), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("%s is truncated", what)
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.Is(err, tar.ErrHeader):
		return invalid("%s is damaged (%v)", what, err)
	}
	if onDisk := (*os.PathError)(nil); errors.As(err, &onDisk) {
		return fmt.Errorf("unpack %s: %w", what, err)
	}
	return invalid("%s is damaged (%v)", what, err)
}

// expand reads content and decompresses it if it is compressed. Reading fails with errdefs.ErrResourceExhausted above the
// limit, and ends with ctx. expand fails with io.EOF if there is no content.
func (l Limits) expand(ctx context.Context, what string, content io.Reader) (*guard, error) {
	buffered := bufio.NewReaderSize(content, 64<<10)
	// Peek returns fewer bytes if there are no more.
	start, err := buffered.Peek(6)
	if len(start) == 0 || err != nil && err != io.EOF {
		return nil, err
	}
	guarded := &guard{ctx: ctx, limit: l.ExpandedBytes, reader: buffered}
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, damaged(what, err)
		}
		guarded.reader, guarded.compressed = unzipped, true
	case bytes.HasPrefix(start, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, invalid("%s is compressed with zstd, which some engines do not read; use gzip or no compression", what)
	case bytes.HasPrefix(start, []byte("\xfd7zXZ\x00")), bytes.HasPrefix(start, []byte("BZh")):
		return nil, invalid("%s is compressed with xz or bzip2; use gzip or no compression", what)
	}
	return guarded, nil
}

// guard ends a read above a limit, or when ctx ends. There is no limit on the compression ratio: a file of zeros is
// legitimate.
type guard struct {
	ctx      context.Context
	limit    int64
	reader   io.Reader
	produced int64
	// compressed is true if reader decompresses.
	compressed bool
}

func (g *guard) Read(p []byte) (int, error) {
	if g.ctx.Err() != nil {
		return 0, g.ctx.Err()
	}
	n, err := g.reader.Read(p)
	g.produced += int64(n)
	if g.produced > g.limit {
		return n, errExpands
	}
	return n, err
}

// errExpands is the error of a read above the limit.
var errExpands = fmt.Errorf("it expands to more than the limit: %w", errdefs.ErrResourceExhausted)

func tooLarge(what string, limit int64) error {
	return fmt.Errorf("%s expands to more than %s, which is the limit: %w", what, resource.FormatBytes(limit), errdefs.ErrResourceExhausted)
}
