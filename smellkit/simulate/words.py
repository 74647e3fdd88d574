"""What the sample says of its smells, written for it: molecules, descriptors, liking, a description."""

# name | key molecules | descriptors | liking, and a description below; fourteen substances, twelve of them scents
TABLE = """
almond | benzaldehyde | marzipan, nutty, bitter-sweet | liked by most, reminds of baking
    Marzipan with a bitter edge: benzaldehyde smells of cherry stones, and toasting adds warm wood and butter.
apple | butyl acetate, hexanal | crisp, green, juicy | liked by nearly everybody
    Crisp and juicy, between cut grass and pear drops: hexanal for the green bite, light esters for sweetness.
banana | isoamyl acetate | sweet, soft, like pear drops | liked, tiring when strong
    Soft, round sweetness of one ester that fills a room at once; riper fruit adds a trace of clove and rum.
cinnamon | cinnamaldehyde | warm, woody, sweet-spicy | liked, linked with winter
    Warm bark with a sweet burn: cinnamaldehyde stays long in the air and covers lighter notes beside it.
cloves | eugenol | hot, medicinal, woody | divides people: kitchen or dentist
    Hot and dark, half spice rack and half dentist; eugenol is heavy, comes slowly and leaves slowly.
coriander | linalool | citrus, floral, dry wood | liked by most as a seed
    Dry seeds with a lemon and lavender lift; linalool makes them floral, old paper and wood lie below.
cumin | cuminaldehyde | earthy, sweaty, bitter | liked in food, not alone
    Earthy and close to skin, with a bitter green edge; cuminaldehyde is what makes a curry smell of itself.
garlic | diallyl disulfide | sulphurous, pungent, savoury | liked when cooked, disliked raw
    Sharp sulphur that bites the nose when cut and turns round and savoury with heat; a trace is enough.
mandarin_orange | limonene | bright, zesty, sweet | liked by nearly everybody
    Bright peel oil, sweeter and softer than lemon; limonene bursts out when the skin is bent and is gone soon.
mango | 3-carene, ocimene | tropical, resinous, ripe | liked, exotic to some
    Ripe and thick, peach with pine resin; terpenes from the skin stand beside honeyed esters of the flesh.
mint | menthol, carvone | cool, sharp, green | liked, keeps awake
    Cool air with a green leaf in it; menthol is felt as cold as much as it is smelled.
peach | gamma-decalactone | velvety, creamy, fruity | liked, soft and well known
    Velvet and cream over ripe fruit; lactones make it milky, a little benzaldehyde recalls the stone inside.
pear | hexyl acetate, ethyl decadienoate | fresh, watery, grainy sweet | liked, gentle
    Fresh and watery with a grainy sweetness; between apple and banana: rounder than one, leaner than the other.
strawberry | furaneol, ethyl butanoate | jammy, caramel, fruity | liked by nearly everybody
    Warm jam and fresh berry together: caramel from furaneol, fruit from butanoates, a hint of green leaf.
"""
MANNERS = {  # how a substance meets the sensors; ends its text
    "esters": "Light molecules reach a sensor within seconds and leave it as quickly.",
    "aldehydes": "Its aldehydes react readily on a hot metal-oxide film.",
    "terpenes": "Oily terpenes take their time to settle on a film and to leave it.",
    "alcohols": "Its alcohols wake the ethanol sensor before all others.",
    "sulphides": "Sulphur compounds are answered strongly even at small amounts.",
    "phenols": "Heavy phenols arrive late and linger.",
}


def smells() -> dict[str, tuple[list[str], list[str], str, str]]:
    """Return name -> key molecules, descriptors, liking, description."""
    lines = TABLE.strip().splitlines()
    table = {}
    for facts, description in zip(lines[::2], lines[1::2], strict=True):
        name, molecules, descriptors, liking = facts.split(" | ")
        table[name] = (molecules.split(", "), descriptors.split(", "), liking, description.strip())
    return table
