package simulate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/resourcemanager/scheduler"
)

// The types of this file read what people write in a scenario.

// written is what stands there, for a sentence.
func written(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(node.Value)
}

type duration time.Duration

func (d *duration) UnmarshalYAML(node *yaml.Node) error {
	value, err := time.ParseDuration(node.Value)
	if err != nil || value < 0 {
		return fmt.Errorf("%s is not a duration, as in 90s, 5m or 9h", written(node))
	}
	*d = duration(value)
	return nil
}

type percent float64

func (p *percent) UnmarshalYAML(node *yaml.Node) error {
	value, err := strconv.ParseFloat(strings.TrimSuffix(node.Value, "%"), 64)
	if err != nil || !strings.HasSuffix(node.Value, "%") {
		return fmt.Errorf("%s is not a percentage, as in 60%%", written(node))
	}
	*p = percent(value)
	return nil
}

// millicores are an amount of cpu, bytes of memory or disk.
type (
	millicores int64
	bytes      int64
)

func (m *millicores) UnmarshalYAML(node *yaml.Node) (err error) {
	*(*int64)(m), err = amount(node, resource.ParseCPU)
	return err
}

func (b *bytes) UnmarshalYAML(node *yaml.Node) (err error) {
	*(*int64)(b), err = amount(node, resource.ParseBytes)
	return err
}

func amount(node *yaml.Node, parse func(string) (int64, error)) (int64, error) {
	if node.Kind != yaml.ScalarNode {
		return 0, fmt.Errorf("%s is not an amount", written(node))
	}
	return parse(node.Value)
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
		return errors.New("a capacity is a percentage as in 60%, or amounts as in {cpu: 4, memory: 8GiB}")
	}
	for key, text := range absolute {
		var err error
		switch key {
		case "cpu":
			c.Absolute[resource.CPU], err = resource.ParseCPU(text)
		case "memory":
			c.Absolute[resource.Memory], err = resource.ParseBytes(text)
		default:
			return fmt.Errorf("unknown key %q; a capacity is a percentage as in 60%%, or amounts as in {cpu: 4, memory: 8GiB}", key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
