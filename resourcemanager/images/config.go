package images

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Config is how an image is to be run.
type Config struct {
	// Architecture and OS are Go's names, for example "amd64" and "linux".
	Architecture string
	OS           string
	Entrypoint   []string
	Cmd          []string
	// Env as KEY=VALUE.
	Env        []string
	WorkingDir string
	User       string
	StopSignal string
	// ExposedPorts as PORT/PROTOCOL, sorted by port; ranges are written out.
	ExposedPorts []string
	Volumes      []string

	// diffIDs are the digests of the layers' tars.
	diffIDs []digest.Digest
	// files are what the image holds, nil unless its layers were looked at since the store was opened.
	files *imageFiles
}

// HasCommand reports whether the image has a command of its own.
func (c Config) HasCommand() bool {
	words := slices.Concat(c.Entrypoint, c.Cmd)
	return len(words) > 0 && words[0] != "" // Engines refuse a command with an empty name.
}

// parseConfig reads an image's config. It fails with a *notAnImage for what is not a JSON object, and with a *platformError
// for an image of other machines.
func (l Limits) parseConfig(content []byte) (Config, error) {
	if !json.Valid(content) || !bytes.HasPrefix(bytes.TrimSpace(content), []byte("{")) {
		return Config{}, notImage("the image's config is not valid JSON")
	}
	var image ocispec.Image
	if err := json.Unmarshal(content, &image); err != nil {
		return Config{}, invalid("the image's config is not valid: %v", err)
	}
	config := Config{
		Architecture: architecture(image.Architecture),
		OS:           image.OS,
		Entrypoint:   image.Config.Entrypoint,
		Cmd:          image.Config.Cmd,
		Env:          image.Config.Env,
		WorkingDir:   image.Config.WorkingDir,
		User:         image.Config.User,
		StopSignal:   image.Config.StopSignal,
		ExposedPorts: slices.Sorted(maps.Keys(image.Config.ExposedPorts)),
		Volumes:      slices.Sorted(maps.Keys(image.Config.Volumes)),
		diffIDs:      image.RootFS.DiffIDs,
	}
	// The oldest builders leave these out.
	setDefault(&config.Architecture, l.Architecture)
	setDefault(&config.OS, "linux")
	if config.OS != "linux" || config.Architecture != l.Architecture {
		return config, l.wrongPlatform(platformName(config.OS, config.Architecture))
	}
	if ports, err := exposedPorts(config.ExposedPorts); err == nil {
		config.ExposedPorts = ports // checkSettings refuses wrong ones.
	}
	return config, nil
}

// settingError names the Dockerfile's instruction that sets something wrong.
func settingError(word, format string, args ...any) error {
	return invalid("the image's %s %s", word, fmt.Sprintf(format, args...))
}
