"""Make `group.jpg`: the two portraits side by side, neither as it was enrolled.

    python tests/photos/compose.py

One is mirrored and darker, the other smaller, tilted and colder; both are compressed anew,
so that recognising them takes more than comparing bytes.
"""

from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).parent


def main() -> None:
    hopper = cv2.imread(str(HERE / "grace_hopper.jpg"))
    collins = cv2.imread(str(HERE / "astronaut.png"))
    hopper = cv2.convertScaleAbs(cv2.flip(hopper, 1), alpha=0.8, beta=-5)
    height, width = collins.shape[:2]
    tilt = cv2.getRotationMatrix2D((width / 2, height / 2), 8, 0.8)
    collins = cv2.warpAffine(collins, tilt, (width, height), borderMode=cv2.BORDER_REPLICATE)
    collins = np.clip(collins * np.array([1.15, 1.0, 0.85]), 0, 255).astype(np.uint8)
    group = np.full((640, 1160, 3), 90, np.uint8)
    group[20 : 20 + hopper.shape[0], 40 : 40 + hopper.shape[1]] = hopper
    group[90 : 90 + height, 610 : 610 + width] = collins
    cv2.imwrite(str(HERE / "group.jpg"), group, [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main()
