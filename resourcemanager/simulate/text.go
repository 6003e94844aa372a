package simulate

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// The types of this file read what people write in a scenario.

type duration time.Duration

func (d *duration) UnmarshalYAML(node *yaml.Node) error {
	value, err := time.ParseDuration(node.Value)
	if err != nil || value < 0 {
		return fmt.Errorf("line %d: %q is not a duration, as in 90s, 5m or 9h", node.Line, node.Value)
	}
	*d = duration(value)
	return nil
}

type percent float64

func (p *percent) UnmarshalYAML(node *yaml.Node) error {
	value, err := strconv.ParseFloat(strings.TrimSuffix(node.Value, "%"), 64)
	if err != nil || !strings.HasSuffix(node.Value, "%") {
		return fmt.Errorf("line %d: %q is not a percentage, as in 60%%", node.Line, node.Value)
	}
	*p = percent(value)
	return nil
}

// quantity is an amount of cpu or of bytes; which of the two counts depends on where it stands.
type quantity struct{ cpu, bytes int64 }

func (q *quantity) UnmarshalYAML(node *yaml.Node) error {
	var cpuErr, bytesErr error
	q.cpu, cpuErr = resource.ParseCPU(node.Value)
	q.bytes, bytesErr = resource.ParseBytes(node.Value)
	if cpuErr != nil && bytesErr != nil {
		return fmt.Errorf("line %d: %q is neither an amount of cpu, as in 0.5 or 500m, nor of bytes, as in 64MiB", node.Line, node.Value)
	}
	return nil
}

type capacity scheduler.Capacity

func (c *capacity) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		var p percent
		if err := p.UnmarshalYAML(node); err != nil {
			return err
		}
		*c = capacity{Percent: float64(p), IsPercent: true}
		return nil
	}
	var absolute map[string]string
	if err := node.Decode(&absolute); err != nil {
		return fmt.Errorf("line %d: a capacity is a percentage, or cpu and memory", node.Line)
	}
	for key, text := range absolute {
		var err error
		switch key {
		case "cpu":
			c.Absolute[resource.CPU], err = resource.ParseCPU(text)
		case "memory":
			c.Absolute[resource.Memory], err = resource.ParseBytes(text)
		default:
			return fmt.Errorf("line %d: unknown key %q", node.Line, key)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", node.Line, err)
		}
	}
	return nil
}
