package plan

import (
	"fmt"
	"strconv"
	"strings"
)

// names owns the names of a role's instances, web-1, web-2, …, and the ids of its asks.
type names struct {
	role string
	// attempt is the number of the master's attempt, a part of the ids of asks.
	attempt int32
	// serial is the number of this attempt's last ask.
	serial int
}

// name is the role's name.
func (n *names) name() string { return n.role }

// instance is the name of the instance of a slot.
func (n *names) instance(slot int) string { return n.role + "-" + strconv.Itoa(slot) }

// number is the number in an instance's name, zero if the name is not one of this role.
func (n *names) number(instance string) int {
	text, ok := strings.CutPrefix(instance, n.role+"-")
	number, err := strconv.Atoi(text)
	if !ok || err != nil || number < 1 || strconv.Itoa(number) != text {
		return 0
	}
	return number
}

// newAsk is the id of the next ask of a slot.
func (n *names) newAsk(slot int) string {
	n.serial++
	return fmt.Sprintf("%s/%d.%d", n.instance(slot), n.attempt, n.serial)
}

// slotOf is the number of the slot that made an ask, zero if no slot of this role did.
func (n *names) slotOf(ask string) int {
	instance, _, _ := strings.Cut(ask, "/")
	return n.number(instance)
}
