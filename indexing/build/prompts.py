"""Text queries for collections without captions: common things in the prompts of CLIP's authors.

With them an index is measured on text queries even where no real ones are known.
"""

from __future__ import annotations

_TEMPLATES = ("a photo of {}", "{}", "a close-up of {}")
_THINGS = """
a dog; a cat; a horse; a bird; a fish; an elephant; a butterfly; a bear; a cow; a sheep; a man; a woman; a child; a
baby asleep; a crowd of people; two friends laughing; a person running; a football match; a swimmer; a cyclist; a
skier; a dancer; a musician on stage; a chef in a kitchen; a doctor; a portrait in black and white; a wedding; a
birthday cake; a bowl of fruit; a plate of pasta; a cup of coffee; a glass of wine; a loaf of bread; vegetables on a
market; a pizza; a red car; a bus; a train at a station; a bicycle against a wall; a motorcycle; an aeroplane in the
sky; a sailing boat; a bridge over a river; a skyscraper; a church; a castle; a small house with a garden; a street
at night; a market place; a living room; a bedroom; a kitchen; a bathroom; an office desk; a bookshelf; a laptop; a
mobile phone; a camera; a television; a wristwatch; a pair of shoes; a handbag; a summer dress; a leather jacket; a
blue shirt; a hat; sunglasses; a gold ring; a wooden chair; a sofa; a lamp; a table laid for dinner; a teddy bear; a
toy train; a guitar; a piano; a painting; a drawing of a face; a map; a page of text; a road sign; a logo; a chart;
a flag; a flower; a rose; a sunflower field; a tree in autumn; a forest; a mountain with snow; a lake; a waterfall;
a beach at sunset; waves on the sea; a desert; a night sky with stars; clouds; a rainbow; rain on a window; fire;
ice; an aerial view of fields; a fence; a staircase; a door; a window; a factory; a tractor; a ship in a harbour; a
lighthouse; a statue; a fountain; a playground; a swimming pool; a tent in the woods; a campfire; fireworks; a
Christmas tree; a carnival; a robot; a medical scan; cells under a microscope; a circuit board; tools on a
workbench; a pattern of stripes; a texture of stone; something green; a bottle of perfume; a box; a backpack; an
umbrella; a ball; a kite
"""


def prompts(limit: int) -> list[str]:
    """Return at most `limit` queries; each thing occurs once before any occurs twice.

    >>> prompts(2)
    ['a photo of a dog', 'a photo of a cat']
    """
    things = [" ".join(thing.split()) for thing in _THINGS.split(";")]
    return [template.format(thing) for template in _TEMPLATES for thing in things][:limit]
