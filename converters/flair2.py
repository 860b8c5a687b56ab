"""FLAIR#2: what FLAIR#1 has, and a Sentinel-2 series of the surroundings of each zone.

::

    flair_sen_train/D004_2021/Z1_AN/sen/SEN2_sp_D004_2021-Z1_AN_data.npy      (T, 10, H, W) uint16
    flair_sen_train/D004_2021/Z1_AN/sen/SEN2_sp_D004_2021-Z1_AN_masks.npy     (T, 2, H, W) 0..100
    flair_sen_train/D004_2021/Z1_AN/sen/SEN2_sp_D004_2021-Z1_AN_products.txt  a name a date
    flair_2_aerial_test, flair_2_labels_test, flair_2_sen_test                of the test domains
    flair-2_centroids_sp_to_patch.json                     where images lie in their super-area
"""

from __future__ import annotations

from converters.flair1 import zone_path
from flairhub.ids import DomainId, RoiId

CENTROIDS_FILE = "flair-2_centroids_sp_to_patch.json"

_ENDINGS = {"data": "npy", "masks": "npy", "products": "txt"}


def area_path(domain: DomainId, zone: RoiId, part: str) -> str:
    """Return the path of a super-area's ``data``, ``masks`` or ``products`` below its folder."""
    place = zone_path(domain, zone)
    return f"{place}/sen/SEN2_sp_{place.replace('/', '-')}_{part}.{_ENDINGS[part]}"
