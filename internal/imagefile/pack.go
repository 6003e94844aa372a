// Package imagefile creates .image files without Docker, and uploads them to a zone in parts that can be resumed. It owns nothing
// beyond a call.
package imagefile

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/mammoth-os/mammoth/internal/distribution"
)

// Suffix ends the names of image files.
const Suffix = ".image"

// PackOptions are the content of an image and how it is run.
type PackOptions struct {
	// Source is a static Linux program, which becomes /BASENAME and the entrypoint, or a directory, which becomes /.
	Source string
	// Output is the file to write.
	Output string
	// Name is the image's NAME:TAG. Default the output's base name without ".image", with the tag "latest".
	Name string
	// Entrypoint is the program to run. Default the source program, or the only executable file in the directory's root.
	Entrypoint []string
	// Args are the arguments of the entrypoint.
	Args []string
	// Ports are TCP ports that the program listens on.
	Ports []int
	// Env as KEY=VALUE.
	Env        []string
	Labels     map[string]string
	User       string
	WorkingDir string
}

// Pack writes an image file: an OCI layout that `docker load` reads as well. The same input gives the same file, byte for
// byte. It fails with errdefs.ErrInvalidArgument for what could not run as an image, and writes nothing then.
func Pack(options PackOptions) (err error) {
	ref, err := options.reference()
	if err != nil {
		return err
	}
	if err := options.validate(); err != nil {
		return err
	}
	if err := options.checkOutput(); err != nil {
		return err
	}
	info, err := os.Stat(options.Source)
	if err != nil {
		return err
	}
	layer, err := os.CreateTemp("", "mammoth-layer-*")
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() { err = errors.Join(err, layer.Close(), os.Remove(layer.Name())) }()
	sum := sha256.New()
	out := tar.NewWriter(io.MultiWriter(layer, sum))

	var program program
	if info.IsDir() {
		if program, err = packDirectory(out, &options); err != nil {
			return err
		}
	} else if program, err = packProgram(out, &options, info); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("pack %s: %w", options.Source, err)
	}
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("pack %s: %w", options.Source, err)
	}
	described := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayer, Digest: digest.NewDigest(digest.SHA256, sum), Size: size,
	}
	return options.write(ref, program.architecture, described, layer)
}

// reference is the image's name.
func (o PackOptions) reference() (distribution.Reference, error) {
	name := o.Name
	if name == "" {
		name = strings.ToLower(strings.TrimSuffix(filepath.Base(o.Output), Suffix))
	}
	ref, err := distribution.ParseReference(name)
	if err == nil && ref.Digest != "" {
		err = fmt.Errorf("an image is packed under a tag, not under the digest in %q: %w", name, errdefs.ErrInvalidArgument)
	}
	return ref, err
}

func (o PackOptions) validate() error {
	for _, port := range o.Ports {
		if port < 1 || port > 65535 {
			return fmt.Errorf("%d is not a port; it must be 1 to 65535: %w", port, errdefs.ErrInvalidArgument)
		}
	}
	given := map[string]bool{}
	for _, variable := range o.Env {
		key, _, ok := strings.Cut(variable, "=")
		switch {
		case !ok || key == "":
			return fmt.Errorf("the environment variable %q must be KEY=VALUE: %w", variable, errdefs.ErrInvalidArgument)
		case given[key]:
			return fmt.Errorf("the environment variable %s is given twice: %w", key, errdefs.ErrInvalidArgument)
		}
		given[key] = true
	}
	if o.WorkingDir != "" && !filepath.IsAbs(o.WorkingDir) {
		return fmt.Errorf("the working directory %q must begin with a slash: %w", o.WorkingDir, errdefs.ErrInvalidArgument)
	}
	return nil
}

// checkOutput finds an output that cannot be written before the layer is packed.
func (o PackOptions) checkOutput() error {
	folder := filepath.Dir(o.Output)
	switch info, err := os.Stat(folder); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the folder %s that the image file %s is to go into does not exist; make it with `mkdir -p %s`, or name another: %w", folder, o.Output, folder, errdefs.ErrNotFound)
	case errors.Is(err, syscall.ENOTDIR) || err == nil && !info.IsDir():
		return fmt.Errorf("the image file %s cannot be in %s, which is not a folder; name another: %w", o.Output, folder, errdefs.ErrInvalidArgument)
	case err != nil:
		return err
	}
	if info, err := os.Stat(o.Output); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder; name a file in it, as in %s: %w", o.Output, filepath.Join(o.Output, "NAME"+Suffix), errdefs.ErrInvalidArgument)
	}
	return nil
}

// packProgram writes a layer of one file.
func packProgram(out *tar.Writer, options *PackOptions, info os.FileInfo) (program, error) {
	file, err := os.Open(options.Source)
	if err != nil {
		return program{}, err
	}
	defer file.Close()
	found, err := readProgram(file)
	switch {
	case err != nil:
		return found, fmt.Errorf("%s is %w", options.Source, err)
	case found.script:
		return found, fmt.Errorf("%s is a script, and an image of one file has nothing to run it with; pack a directory that has: %w", options.Source, errdefs.ErrInvalidArgument)
	case found.interpreter != "":
		return found, fmt.Errorf("%s is dynamically linked: it needs %s, which an image of one file does not have; build it static (CGO_ENABLED=0 for Go), or pack a directory with its libraries: %w",
			options.Source, found.interpreter, errdefs.ErrInvalidArgument)
	}
	name := filepath.Base(options.Source)
	if err := writeEntry(out, name, 0o755, file, info.Size()); err != nil {
		return found, fmt.Errorf("pack %s: %w", options.Source, err)
	}
	if len(options.Entrypoint) == 0 {
		options.Entrypoint = []string{"/" + name}
	}
	return found, nil
}

// writeEntry writes a file that belongs to root and has no time, so that the result is reproducible.
func writeEntry(out *tar.Writer, name string, mode int64, content io.Reader, size int64) error {
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: epoch}); err != nil {
		return err
	}
	copied, err := io.Copy(out, content)
	if err == nil && copied < size {
		err = fmt.Errorf("%s became shorter meanwhile", name)
	}
	return err
}

var epoch = time.Unix(0, 0).UTC()

// write writes the archive to a temporary file beside the output, and renames it.
func (o PackOptions) write(ref distribution.Reference, architecture string, layer ocispec.Descriptor, content io.ReadSeeker) (err error) {
	config, err := json.Marshal(o.config(architecture, layer))
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    describe(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{layer},
	})
	if err != nil {
		return err
	}
	top := describe(ocispec.MediaTypeImageManifest, manifest)
	top.Platform = &ocispec.Platform{OS: "linux", Architecture: architecture}
	top.Annotations = map[string]string{"io.containerd.image.name": ref.String(), ocispec.AnnotationRefName: ref.Tag}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{top},
	})
	if err != nil {
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	docker, err := json.Marshal([]struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{{blobName(digest.FromBytes(config)), []string{ref.String()}, []string{blobName(layer.Digest)}}})
	if err != nil {
		return err
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}

	file, err := os.CreateTemp(filepath.Dir(o.Output), "."+filepath.Base(o.Output)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	out := tar.NewWriter(file)
	for _, part := range []struct {
		name    string
		content []byte
	}{
		{ocispec.ImageLayoutFile, layout},
		{ocispec.ImageIndexFile, index},
		{"manifest.json", docker},
		{blobName(digest.FromBytes(config)), config},
		{blobName(top.Digest), manifest},
	} {
		if err := writeEntry(out, part.name, 0o644, bytes.NewReader(part.content), int64(len(part.content))); err != nil {
			return errors.Join(fmt.Errorf("write %s: %w", o.Output, err), file.Close())
		}
	}
	err = writeEntry(out, blobName(layer.Digest), 0o644, content, layer.Size)
	if err := errors.Join(err, out.Close(), file.Chmod(0o644), file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", o.Output, err)
	}
	return os.Rename(file.Name(), o.Output)
}

func (o PackOptions) config(architecture string, layer ocispec.Descriptor) ocispec.Image {
	image := ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{OS: "linux", Architecture: architecture},
		Config: ocispec.ImageConfig{
			Entrypoint: o.Entrypoint,
			Cmd:        o.Args,
			Env:        o.Env,
			Labels:     o.Labels,
			User:       o.User,
			WorkingDir: o.WorkingDir,
		},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
		History: []ocispec.History{{Created: &epoch, CreatedBy: "mammoth image pack"}},
	}
	for _, port := range o.Ports {
		if image.Config.ExposedPorts == nil {
			image.Config.ExposedPorts = map[string]struct{}{}
		}
		image.Config.ExposedPorts[strconv.Itoa(port)+"/tcp"] = struct{}{}
	}
	return image
}

func describe(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func blobName(sum digest.Digest) string {
	return ocispec.ImageBlobsDir + "/" + sum.Algorithm().String() + "/" + sum.Encoded()
}
